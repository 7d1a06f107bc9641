"""
Choose the weights of the sources for each length of the history.

The weights are learned (`weighing`), then compared with two simpler choices on the same users:

    factors alone                       if the learned weights gain less than `LEAST_GAIN` over them
    the strongest source, sharpened     its weight 1 and a small share of the learned weights, if this gains `LEAST_GAIN`

The likelihood that learning maximises counts every held-out item, the lists only the first places. If one source finds
the next item almost surely, the learned weights lean too much towards the other sources.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from offline.evaluation.trials import Trial
from offline.newcomers import Newcomers
from offline.pooling import Pool, complete, judge, learn
from offline.returning import LEAST_GAIN
from offline.weighing import scaled
from recsys.ranking.mixing import FIXED_SOURCES
from topk.item_table import F64

# Least length of each group of short histories, and the number of known items of the newcomers that represent it.
LENGTHS = {0: 0, 1: 1, 2: 2, 4: 5, 8: 10}
LONG = 16
# Shares of the learned weights beside the strongest source.
_SHARES = (0.0, 0.1, 0.3, 1.0)
_ENOUGH_USERS = 300


def choose_by_length(newcomers: Newcomers, pools: Sequence[Pool], weights: F64) -> tuple[list[F64], list[Trial]]:
    """
    Return the weights for every length and for long histories, and the trials behind them.

    Args:
        newcomers: Users held out completely, who stand for lengths that few users of *pools* have.
        pools: The candidates of users whose next items are held out.
        weights: The weights learned on all of *pools*, in the units of the softmax.
    """
    table, trials = [], []
    for least, below in zip(LENGTHS, [*list(LENGTHS)[1:], LONG], strict=True):
        own = [pool.among(least, below) for pool in pools]
        few = sum(pool.counts.size for pool in own) < _ENOUGH_USERS
        known = [pool] if few and (pool := newcomers.pool(LENGTHS[least])) else []
        # Without a history, no item votes for neighbours, and recent popularity may tell what new users choose.
        sources = pools[0].sources.of_present() if least else range(FIXED_SOURCES)
        row = learn([*own, *known], weights, sources)
        chosen, tried = accept(known or own, complete(scaled(row)), what=f"{least} to {below - 1} items")
        table.append(chosen)
        trials += tried
    chosen, tried = accept(pools, complete(scaled(weights)), what="all hold-out users")
    return [*table, chosen], [*trials, *tried]


def accept(pools: Sequence[Pool], weights: F64, *, what: str) -> tuple[F64, list[Trial]]:
    """Return the best of the learned *weights*, the factors alone and the strongest source sharpened; and the trials."""
    alone = np.eye(weights.size)[0]
    pools = [pool for pool in pools if pool.counts.size]
    if not pools:
        return weights, []
    before, after = (judge(pools, each, what=what) for each in (alone, weights))
    chosen, trial = (weights, after) if after.relative_to(before) >= 1 + LEAST_GAIN else (alone, before)
    sharpened = [(each, judge(pools, each, what=what)) for each in _sharpen(weights)]
    best, best_trial = max(sharpened, key=lambda pair: pair[1].relative_to(trial))
    if best_trial.relative_to(trial) >= 1 + LEAST_GAIN:
        return best, [before, after, best_trial]
    return chosen, [before, after]


def _sharpen(weights: F64) -> Iterator[F64]:
    strongest = np.eye(weights.size)[int(np.argmax(weights))]
    for share in _SHARES:
        yield complete(scaled(strongest + share * weights))
