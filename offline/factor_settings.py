"""Choose the settings of the factors, and how much the attributes of items count, on a hold-out inside the training data."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from offline.descriptions import Arrays, AttributeSettings
from offline.evaluation.contenders import list_by_model
from offline.evaluation.quality import Task
from offline.evaluation.trials import Trial, unwritten
from offline.return_weights import LEAST_GAIN
from offline.training import ModelSettings, add_attributes, fit_arrays
from recrank.artefact import Item
from recrank.model import RankingModel

HALF_LIVES = (0.0, 20.0, 8.0, 5.0, 3.0, 2.0)
FREQUENCY_EXPONENTS = (0.8, 0.0)
STRENGTHS = (2.0, 5.0)


def choose_factors(
    task: Task, settings: ModelSettings, exponents: Sequence[float], half_lives: Sequence[float]
) -> tuple[ModelSettings, Arrays, Trial]:
    """Return the best of *exponents* and *half_lives* for *task*, the fitted arrays and the trial."""
    tried: list[tuple[ModelSettings, Arrays, Trial]] = []
    for exponent in exponents:
        each = replace(settings, als=replace(settings.als, frequency_exponent=exponent))
        fitted = fit_arrays(task.records, task.ratings, each)
        # The best half-life does not depend on the exponent, so later exponents use that of the best trial.
        for half_life in [_best_of(tried)[0].half_life] if tried else half_lives:
            arrays = {**fitted, "fold_in": np.array([each.prior_strength, half_life], np.float32)}
            lists = list_by_model(RankingModel(unwritten(arrays, task.ratings.item_ids)), task)
            name = f"factors, frequency exponent {exponent:g}, half-life {half_life:g}"
            tried.append((replace(each, half_life=half_life), arrays, Trial.judge(name, lists, task.held)))
    return _best_of(tried)


def choose_strength(
    task: Task, arrays: Arrays, alone: Trial, items: Mapping[str, Item]
) -> tuple[float, Arrays, list[Trial]]:
    """Return the strength of the items' attributes, 0 if none gains `LEAST_GAIN`, with its arrays and the trials."""
    best, trials = (0.0, arrays, alone), [alone]
    if not any(item_id in items and items[item_id].attributes for item_id in task.ratings.item_ids):
        return 0.0, arrays, trials
    for strength in STRENGTHS:
        described = add_attributes(arrays, task.ratings, AttributeSettings(strength), items=items, new=())
        lists = list_by_model(RankingModel(unwritten(described, task.ratings.item_ids)), task)
        trials.append(Trial.judge(f"factors, attributes of strength {strength:g}", lists, task.held))
        if trials[-1].relative_to(alone) >= max(1 + LEAST_GAIN, best[2].relative_to(alone)):
            best = strength, described, trials[-1]
    return best[0], best[1], trials


def _best_of(tried: Sequence[tuple[ModelSettings, Arrays, Trial]]) -> tuple[ModelSettings, Arrays, Trial]:
    """Return the trial with the best measures relative to the first trial."""
    return max(tried, key=lambda one: one[2].relative_to(tried[0][2]))
