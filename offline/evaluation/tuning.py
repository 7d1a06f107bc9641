"""
Choose the parameters of the baselines as the model's are chosen: on a hold-out inside the training part.

The hold-out, the half-lives and the measure are those of `offline/choice.py` and `offline/factor_settings.py`, so the
comparison is fair.
"""

from dataclasses import dataclass

import numpy as np

from offline.evaluation.baselines import Baseline, Scorer, list_by_baseline, popularity
from offline.evaluation.histories import Histories
from offline.evaluation.quality import Task
from offline.evaluation.trials import Trial
from offline.factor_settings import HALF_LIVES
from topk.item_table import F64, I64


@dataclass(frozen=True)
class Tuned:
    """
    A baseline and its chosen parameters.

    Attributes:
        baseline: The baseline.
        value: Its parameter.
        half_life: Half-life of the votes, in places of the history; 0 if they do not fade.
    """

    baseline: Baseline
    value: float
    half_life: float

    def describe(self) -> str:
        """Return the chosen parameters, such as `ridge 300, half-life 8`."""
        parameter = f"{self.baseline.parameter} {self.value:g}" if self.baseline.parameter else ""
        fading = f"half-life {self.half_life:g}" if self.half_life else ""
        return ", ".join(filter(None, (parameter, fading)))

    def fit(self, histories: Histories) -> "FittedBaseline":
        """Fit the baseline to *histories*."""
        return FittedBaseline(self, self.baseline.fit(histories, self.value), popularity(histories))


@dataclass(frozen=True)
class FittedBaseline:
    """A fitted baseline: its parameters, its scorer and the popularity (I,) of the training part."""

    tuned: Tuned
    score: Scorer
    counts: F64

    def lists(self, histories: Histories) -> I64:
        """Return the lists (N, DEPTH) for *histories*."""
        return list_by_baseline(self.tuned.baseline, self.score, self.tuned.half_life, histories, self.counts)


def tune(baseline: Baseline, inner: Task, *, ordered: bool) -> Tuned:
    """
    Return *baseline* with the parameters that are best on *inner*, a hold-out inside the training part.

    Cost: a fit for each value of its parameter, and the lists of all users of *inner* for each half-life.
    """
    half_lives = HALF_LIVES if ordered and baseline.fades else (0.0,)
    choices = [Tuned(baseline, value, half_life) for value in baseline.values for half_life in half_lives]
    if len(choices) == 1 or not inner.users.size:
        return choices[0]
    training = Histories.of(inner.records, inner.ratings)
    asked = Histories.of([inner.records[row] for row in inner.users], inner.ratings)
    trials: list[Trial] = []
    for value in baseline.values:
        score, counts = baseline.fit(training, value), popularity(training)
        for half_life in half_lives:
            lists = list_by_baseline(baseline, score, half_life, asked, counts)
            trials.append(Trial.judge(baseline.name, lists, inner.held))
    return choices[int(np.argmax([trial.relative_to(trials[0]) for trial in trials]))]
