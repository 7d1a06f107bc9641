"""
Search the hyper-parameters of the factors, one at a time, around the settings suggested for the size of the data.

Each value is judged on inner hold-outs of the training data, never on the items that an evaluation holds out. The
measure is the sum of NDCG@10 and Recall@20, each relative to that of the suggestion. A joint random search was worse
than the suggestion alone (docs/adr/0035-hyper-parameters.md), so the search stays close to the suggestion.
`offline/choice.py` chooses all other settings.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from offline.als import AlsSettings
from offline.evaluation.contenders import list_by_model
from offline.evaluation.holdout import split_records
from offline.evaluation.quality import Task, make_task, measure
from offline.evaluation.trials import Measures
from offline.matrix import Ratings, make_ratings
from offline.training import ModelSettings, suggest, train
from recrank.artefact import Artefact, read_artefact
from recrank.model import RankingModel
from recsys.records import UserRecord

# The values to try, in this order: first multiples of the suggestion, then absolute values.
FACTORS = {"ridge": (0.67, 1.5), "unobserved_weight": (0.67, 1.5)}
VALUES = {
    "popularity_exponent": (0.15, 0.28, 0.4),
    "weight_exponent": (0.0, 0.2, 0.42),
    "frequency_exponent": (0.4, 0.8),
}

_SEEDS = (100, 101)
_MOST_USERS = 2000


@dataclass(frozen=True)
class SearchTrial(Measures):
    """
    A trial of a value, and its result on the inner hold-outs.

    Attributes:
        parameter: Parameter changed from the best settings so far; "suggested" for the first trial.
        value: New value of the parameter.
        ndcg_10: Mean NDCG@10 over users and hold-outs.
        recall_20: Mean Recall@20 over users and hold-outs.
    """

    parameter: str
    value: float
    ndcg_10: float
    recall_20: float

    def beats(self, other: "SearchTrial", *, reference: "SearchTrial") -> bool:
        """Return whether the measures, relative to *reference*, exceed those of *other*."""
        return self.relative_to(reference) > other.relative_to(reference)


@dataclass(frozen=True)
class Search:
    """
    The trials of a search and the settings found.

    Attributes:
        settings: The best settings.
        trials: All trials in order; the first is the suggestion. Empty if the data has too few items to hold out.
        best: The best trial; None without trials.
    """

    settings: ModelSettings
    trials: list[SearchTrial]
    best: SearchTrial | None

    def facts(self) -> dict[str, Any]:
        """Return the facts of the search for a manifest."""
        return {"seeds": list(_SEEDS), "trials": [asdict(trial) for trial in self.trials]}

    def metrics(self) -> dict[str, float]:
        """Return the measures of the suggestion and of the best trial on the inner hold-outs."""
        if self.best is None:
            return {}
        return {
            "validation_ndcg_10": self.best.ndcg_10,
            "validation_recall_20": self.best.recall_20,
            "validation_ndcg_10_suggested": self.trials[0].ndcg_10,
            "validation_recall_20_suggested": self.trials[0].recall_20,
        }


def search(records: Sequence[UserRecord]) -> Search:
    """
    Search around the suggestion for *records*. Equal records give equal settings on machines of the same kind.

    Cost: up to 10 trainings on four fifths of the data for each of two inner hold-outs.
    """
    ratings = make_ratings(records)
    settings = suggest(ratings)
    tasks = [_inner_task(records, seed=seed) for seed in _SEEDS]
    if not all(task.users.size for task in tasks):
        return Search(settings, [], None)
    steps = _steps(settings.als, ratings)
    with tqdm(total=1 + sum(map(len, steps.values())), desc="searching", unit="trial", disable=None) as bar:
        reference = best = _try(settings, tasks, name="suggested", value=0.0)
        bar.update()
        trials = [reference]
        for name, values in steps.items():
            for value in values:
                candidate = replace(settings, als=_changed(settings.als, name, value))
                trials.append(_try(candidate, tasks, name=name, value=value))
                bar.update()
                if trials[-1].beats(best, reference=reference):
                    settings, best = candidate, trials[-1]
    return Search(settings, trials, best)


def _steps(suggested: AlsSettings, ratings: Ratings) -> Mapping[str, list[float]]:
    """Return the values to try for each parameter, without the suggested value."""
    steps = {name: [getattr(suggested, name) * factor for factor in factors] for name, factors in FACTORS.items()}
    for name, values in VALUES.items():
        steps[name] = [value for value in values if value != getattr(suggested, name)]
    # With equal weights the exponent has no effect.
    if np.unique(ratings.weights.data).size < 2:
        del steps["weight_exponent"]
    return steps


def _changed(settings: AlsSettings, name: str, value: float) -> AlsSettings:
    changes: dict[str, Any] = {name: value}
    return replace(settings, **changes)


def _inner_task(records: Sequence[UserRecord], *, seed: int) -> Task:
    return make_task(*split_records(records, holdout="random", seed=seed), most=_MOST_USERS)


def _try(settings: ModelSettings, tasks: Sequence[Task], *, name: str, value: float) -> SearchTrial:
    return _judge([(RankingModel(_fit(settings, task)), task) for task in tasks], name=name, value=value)


def _fit(settings: ModelSettings, task: Task) -> Artefact:
    with tempfile.TemporaryDirectory() as folder:
        train(task.records, items={}, folder=Path(folder), dataset="", settings=settings)
        return read_artefact(Path(folder))


def _judge(asked: Sequence[tuple[RankingModel, Task]], *, name: str, value: float) -> SearchTrial:
    qualities = [measure(list_by_model(model, task), task.panel) for model, task in asked]
    return SearchTrial(
        name,
        value,
        ndcg_10=float(np.mean(np.concatenate([quality.ndcg for quality in qualities]))),
        recall_20=float(np.mean(np.concatenate([quality.recall for quality in qualities]))),
    )
