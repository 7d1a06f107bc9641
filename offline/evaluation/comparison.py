"""Evaluate every contender, a model or a baseline, on the panels of a study, and join the outcomes of several splits."""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from offline.als import AlsSettings
from offline.decision import TrainingDecision, decide
from offline.evaluation.ablations import vary, vary_features
from offline.evaluation.baselines import BASELINES
from offline.evaluation.contenders import list_answers, load_model, rank_by_model
from offline.evaluation.histories import Histories
from offline.evaluation.holdout import Holdout, split_records
from offline.evaluation.quality import Panel, Quality, make_task, measure
from offline.evaluation.report import PanelEntry, Spread
from offline.evaluation.studies import Study
from offline.evaluation.tuning import tune
from offline.progress import progress
from offline.training import MODEL_NAME, train
from topk.item_table import I64

# The inner hold-out of the baselines is that of offline/choice.py.
_INNER_SEED, _INNER_USERS = 100, 1000


@dataclass(frozen=True)
class StudyOutcome:
    """
    The result of a contender in one study.

    Attributes:
        name: Name of the contender.
        qualities: Quality of its lists, by panel; empty if it was skipped.
        seconds: Duration of its training; None if it was trained elsewhere.
        version: Version of the model; empty for a baseline.
        note: The chosen parameters of a baseline, the reason why it was skipped, or the decision about the ranker.
    """

    name: str
    qualities: Mapping[str, Quality] = field(default_factory=dict)
    seconds: float | None = None
    version: str = ""
    note: str = ""


def compare(study: Study, *, searched: AlsSettings | None = None, ablate: bool = False) -> list[StudyOutcome]:
    """
    Return the outcomes of the baselines, then of the model, on all panels of *study*.

    Args:
        study: The training part and the panels.
        searched: Searched settings of the factors; a second model is trained with them. None for no second model.
        ablate: Also train the variants of the last of these settings.
    """
    return [*compare_baselines(study), *_compare_models(study, searched=searched, ablate=ablate)]


def compare_baselines(study: Study) -> Iterator[StudyOutcome]:
    """Yield the outcome of each baseline; their parameters are chosen inside the training part."""
    histories = Histories.of(study.records, study.ratings)
    holdout: Holdout = "temporal" if study.ordered else "random"
    inner = make_task(*split_records(study.records, holdout=holdout, seed=_INNER_SEED), most=_INNER_USERS)
    panels = {name: (panel, Histories.of(panel.records, study.ratings)) for name, panel in study.panels.items()}
    with progress(f"{study.name}: baselines", len(BASELINES), "baselines") as show:
        for place, baseline in enumerate(BASELINES):
            if reason := baseline.obstacle(histories, ordered=study.ordered):
                yield StudyOutcome(baseline.name, note=reason)
                continue
            tuned = tune(baseline, inner, ordered=study.ordered)
            began = time.monotonic()
            fitted = tuned.fit(histories)
            seconds = time.monotonic() - began
            qualities = {name: measure(fitted.lists(asked), panel) for name, (panel, asked) in panels.items()}
            yield StudyOutcome(baseline.name, qualities, seconds, note=tuned.describe())
            show(place + 1)


def _compare_models(study: Study, *, searched: AlsSettings | None, ablate: bool) -> Iterator[StudyOutcome]:
    print(f"{study.name}: choosing the settings of {MODEL_NAME}", file=sys.stderr, flush=True)
    contenders = {MODEL_NAME: _choose(study, None)}
    if searched:
        contenders[f"{MODEL_NAME}, searched"] = _choose(study, searched)
    if ablate:
        last = list(contenders.values())[-1]
        contenders |= {f"  {name}": replace(last, settings=each) for name, each in vary(last.settings).items()}
        if last.verdict and last.verdict.ranker:
            rankers = vary_features(last.verdict.ranker, (study.declaration and study.declaration.features) or {})
            contenders |= {
                f"  {name}": replace(last, verdict=replace(last.verdict, ranker=ranker))
                for name, ranker in rankers.items()
            }
    for name, choice in contenders.items():
        yield _train_and_ask(study, choice, name=name)


def _choose(study: Study, als: AlsSettings | None) -> TrainingDecision:
    decision = decide(
        study.records,
        declaration=study.declaration,
        items=study.items,
        shown=study.shown,
        als=als,
        ahead=study.ahead,
    )
    if decision.verdict:
        print(f"{study.name}: {decision.verdict.describe()}", file=sys.stderr, flush=True)
    return decision


def _train_and_ask(study: Study, choice: TrainingDecision, *, name: str) -> StudyOutcome:
    title = f"{study.name}: {name.strip()}"
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        manifest = train(
            study.records,
            items=study.items,
            shown=study.shown,
            declaration=study.declaration,
            folder=Path(folder),
            dataset="",
            settings=choice.settings,
            facts=choice.facts(),
            ranker=choice.ranker,
            progress=show_epochs(f"{title}, training"),
        )
        seconds = time.monotonic() - began
        model = load_model(Path(folder))

    def lists(panel: Panel, where: str) -> I64:
        return list_answers(rank_by_model(model, panel, name=f"{title}, {where}"), panel)

    qualities = {where: measure(lists(panel, where), panel) for where, panel in study.panels.items()}
    note = choice.verdict.describe() if choice.verdict and name in {MODEL_NAME, f"{MODEL_NAME}, searched"} else ""
    return StudyOutcome(name, qualities, seconds, manifest.version, note)


def show_epochs(name: str) -> Callable[[range], Iterable[int]]:
    """Return a function that iterates over epochs and shows the progress."""

    def iterate(epochs: range) -> Iterator[int]:
        with progress(name, len(epochs), "epochs") as show:
            for epoch in epochs:
                yield epoch
                show(epoch + 1)

    return iterate


def join_splits(splits: Sequence[Sequence[StudyOutcome]], panel: str) -> list[PanelEntry]:
    """
    Return one entry per contender for *panel* over *splits*, which all have the same contenders and the same users.

    Each user's value is the mean over splits, so the interval is over users, as for one split. The entry also has the
    standard deviation over splits, which shows the effect of another split.
    """
    joined = [_join(outcomes, panel) for outcomes in zip(*splits, strict=True) if panel in outcomes[0].qualities]
    return PanelEntry.all_of(joined, reference=reference_of(splits[0]))


def reference_of(outcomes: Sequence[StudyOutcome]) -> str:
    """Return the name of the contender that the others are compared with, which is the first model."""
    names = {baseline.name for baseline in BASELINES}
    return next(outcome.name for outcome in outcomes if outcome.name not in names)


def _join(outcomes: Sequence[StudyOutcome], panel: str) -> PanelEntry:
    qualities = [outcome.qualities[panel] for outcome in outcomes]
    joined = replace(
        qualities[0],
        ndcg=np.mean([quality.ndcg for quality in qualities], axis=0),
        recall=np.mean([quality.recall for quality in qualities], axis=0),
        recall_reachable=np.mean([quality.recall_reachable for quality in qualities], axis=0),
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
    return PanelEntry(
        outcomes[0].name,
        joined,
        seconds=statistics.median(seconds) if seconds else None,
        spread=spread,
        note=outcomes[0].note if len(outcomes) == 1 else "",
    )
