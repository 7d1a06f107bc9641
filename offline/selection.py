"""Choose what the blend consists of: the half-life of the factors, and the views of the counted pairs."""

from collections.abc import Sequence

import numpy as np

from offline.evaluation.trials import Trial
from offline.factor_settings import HALF_LIVES
from offline.folds import Fold
from offline.pairs import View
from offline.pools import Pool, Sources, complete, judge, learn
from offline.return_weights import LEAST_GAIN
from offline.source_weights import scaled
from topk.item_table import F64

# The first view finds items that follow the newest item, the second one items that go with the last few. The others find
# items that go with any of the history: near to it in time, or at any time.
NEAR_VIEWS = (View(0.0, 0.5, 0.2, 1.0), View(0.5, 0.5, 0.5, 3.0))
WHOLE_VIEWS = (View(1.0, 0.5, 0.2, 0.0), View(0.0, 0.5, 0.5, 0.0, together=True))
ORDERED_VIEWS = NEAR_VIEWS + WHOLE_VIEWS
UNORDERED_VIEWS = (View(0.0, 0.5, 0.5, 0.0),)


def choose_half_life(folds: Sequence[Fold], sources: Sources, alone: float) -> tuple[float, list[Pool], list[Trial]]:
    """
    Return the best half-life of the factors within the blend, the candidates of the folds with it, and the trials.

    The other sources see the newest items, so the factors gain from a half-life at least as long as they have *alone*.
    The trials end when a longer half-life loses `LEAST_GAIN`.
    """
    tried: list[tuple[float, list[Pool], Trial]] = []
    for half_life in HALF_LIVES[: HALF_LIVES.index(alone) + 1][::-1]:
        pools = [fold.pool(sources, half_life=half_life) for fold in folds]
        few = _with_views(pools)
        what = f"half-life {half_life:g} in the blend"
        tried.append((half_life, pools, judge(few, complete(scaled(_learn_all(few))), what=what)))
        if tried[-1][2].relative_to(tried[0][2]) < 1 - LEAST_GAIN:
            break
    best = max(tried, key=lambda one: one[2].relative_to(tried[0][2]))
    return best[0], best[1], [trial for _, _, trial in tried]


def choose_views(pools: list[Pool]) -> tuple[list[Pool], F64, list[Trial]]:
    """Return *pools* with at most one view of the whole history, which gains `LEAST_GAIN`; the weights and the trials."""
    tried: list[tuple[list[Pool], F64, Trial]] = []
    for more in ((), *((view,) for view in WHOLE_VIEWS if view in pools[0].sources.views)):
        each = _with_views(pools, *more)
        weights = _learn_all(each)
        tried.append((each, weights, judge(each, complete(scaled(weights)), what="all hold-out users")))
    before = tried[0][2]
    best = max(tried, key=lambda one: one[2].relative_to(before))
    chosen, weights, _ = best if best[2].relative_to(before) >= 1 + LEAST_GAIN else tried[0]
    return chosen, weights, [trial for _, _, trial in tried] if len(tried) > 1 else []


def _with_views(pools: list[Pool], *more: View) -> list[Pool]:
    """Return *pools* without the views of the whole history, except *more*."""
    left_out = [view for view in WHOLE_VIEWS if view not in more]
    return [pool.only_views([view for view in pool.sources.views if view not in left_out]) for pool in pools]


def _learn_all(pools: Sequence[Pool]) -> F64:
    return learn(pools, np.zeros(len(pools[0].sources)), pools[0].sources.of_present())
