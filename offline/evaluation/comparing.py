"""Evaluate every contender, a model or a baseline, on a split, and join the outcomes of several splits."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from offline.als import AlsSettings
from offline.choosing import choose
from offline.evaluation.ablations import vary
from offline.evaluation.baselines import BASELINES
from offline.evaluation.contenders import list_answers, list_by_scores, load_model, rank_by_model
from offline.evaluation.quality import Quality, Task, measure
from offline.evaluation.report import Entry, Spread
from offline.training import MODEL_NAME, ModelSettings, train


@dataclass(frozen=True)
class Outcome:
    """
    The result of a contender on one split.

    Attributes:
        name: Name of the contender.
        quality: Quality of its lists.
        seconds: Duration of its training; None if it was trained elsewhere.
        version: Version of the model; empty for a baseline.
    """

    name: str
    quality: Quality
    seconds: float | None = None
    version: str = ""


def compare_baselines(task: Task) -> list[Outcome]:
    """Return the outcome of each baseline."""
    outcomes = []
    for name in tqdm(BASELINES, desc="baselines", disable=None):
        began = time.monotonic()
        score = BASELINES[name](task.ratings.weights)
        seconds = time.monotonic() - began
        outcomes.append(Outcome(name, measure(list_by_scores(score, task, name=name), task), seconds))
    return outcomes


def train_and_compare(task: Task, *, ahead: bool, searched: AlsSettings | None, ablate: bool) -> list[Outcome]:
    """
    Train models on the training part of *task* and return their outcomes.

    Args:
        task: The split.
        ahead: The held-out items are each user's newest, not random ones.
        searched: Searched settings of the factors; a second model is trained with them. None for no second model.
        ablate: Also train the variants of the last of these settings.
    """
    contenders = {MODEL_NAME: choose(task.records, ahead=ahead).settings}
    if searched:
        contenders[f"{MODEL_NAME}, searched"] = choose(task.records, als=searched, ahead=ahead).settings
    if ablate:
        variants = vary(list(contenders.values())[-1])
        contenders |= {f"  {name}": settings for name, settings in variants.items()}
    return [_train_and_ask(task, settings, name=name) for name, settings in contenders.items()]


def _train_and_ask(task: Task, settings: ModelSettings, *, name: str) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        manifest = train(
            task.records,
            items={},
            folder=Path(folder),
            dataset="",
            settings=settings,
            progress=lambda epochs: tqdm(epochs, desc=f"training {name.strip()}", unit="epoch", disable=None),
        )
        seconds = time.monotonic() - began
        model = load_model(Path(folder))
    lists = list_answers(rank_by_model(model, task, name=name), task)
    return Outcome(name, measure(lists, task), seconds, manifest.version)


def join_splits(splits: Sequence[Sequence[Outcome]]) -> list[Entry]:
    """
    Return one entry per contender over *splits*, which all have the same contenders and the same users.

    Each user's value is the mean over splits, so the interval is over users, as for one split. The entry also has the
    standard deviation over splits, which shows the effect of another split.
    """
    return [_join(outcomes) for outcomes in zip(*splits, strict=True)]


def _join(outcomes: Sequence[Outcome]) -> Entry:
    qualities = [outcome.quality for outcome in outcomes]
    joined = Quality(
        ndcg=np.mean([quality.ndcg for quality in qualities], axis=0),
        recall=np.mean([quality.recall for quality in qualities], axis=0),
        coverage=statistics.fmean(quality.coverage for quality in qualities),
        popularity_bias=statistics.fmean(quality.popularity_bias for quality in qualities),
    )
    seconds = [outcome.seconds for outcome in outcomes if outcome.seconds is not None]
    spread = None
    if len(outcomes) > 1:
        spread = Spread(
            ndcg=statistics.stdev(float(quality.ndcg.mean()) for quality in qualities),
            recall=statistics.stdev(float(quality.recall.mean()) for quality in qualities),
        )
    return Entry.of(outcomes[0].name, joined, seconds=statistics.median(seconds) if seconds else None, spread=spread)
