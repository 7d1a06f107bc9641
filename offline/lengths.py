"""
Choose the weights of the sources for each length of the history.

The weights are learned (`source_weights`), then compared with two simpler choices on the same users:

    a source alone                      if the learned weights gain less than `LEAST_GAIN` over it: the factors, or
                                        popularity for users without a history
    the strongest source, sharpened     its weight 1 and a small share of the learned weights, if this gains `LEAST_GAIN`

The likelihood that learning maximises counts every held-out item, the lists only the first places. If one source finds
the next item almost surely, the learned weights lean too much towards the other sources. The chosen weights are refined by
what the lists find (`refinement`).
"""

from collections.abc import Iterator, Sequence

import numpy as np

from offline.evaluation.trials import Trial
from offline.newcomers import Newcomers
from offline.pools import Pool, complete, judge, learn
from offline.refinement import refine
from offline.return_weights import LEAST_GAIN
from offline.source_weights import scaled
from recrank.mixture import FACTORS, FIXED_SOURCES, POPULARITY
from topk.item_table import F64

# Least length of each group of short histories, and the number of known items of the newcomers that represent it.
LENGTHS = {0: 0, 1: 1, 2: 2, 4: 5, 8: 10}
LONG = 16
# Shares of the learned weights beside the strongest source.
_SHARES = (0.0, 0.1, 0.3, 1.0)
_ENOUGH_USERS = 300
# The sources that may rank alone, also for users without a history.
_ALONE, _COLD = (FACTORS,), (FACTORS, POPULARITY)


def choose_by_length(
    newcomers: Newcomers, pools: Sequence[Pool], weights: F64, *, arrived: Sequence[Pool] = ()
) -> tuple[list[F64], list[Trial]]:
    """
    Return the weights for every length and for long histories, and the trials behind them.

    Args:
        newcomers: Users held out completely, who stand for lengths that few users of *pools* have.
        pools: The candidates of users whose next items are held out.
        weights: The weights learned on all of *pools*, in the units of the softmax.
        arrived: The candidates of users without a history who arrive after a date; empty if few arrive. They stand for
            length 0 in place of the newcomers.
    """
    table, trials = [], []
    for least, below in zip(LENGTHS, [*list(LENGTHS)[1:], LONG], strict=True):
        own = [pool.among(least, below) for pool in pools] if least or not arrived else arrived
        few = own is not arrived and sum(pool.counts.size for pool in own) < _ENOUGH_USERS
        known = [pool] if few and (pool := newcomers.pool(LENGTHS[least])) else []
        # Without a history, no item votes for neighbours, and recent popularity may tell what new users choose.
        sources = pools[0].sources.of_present() if least else range(FIXED_SOURCES)
        weighed = complete(scaled(learn([*own, *known], weights, sources)))
        alone = _ALONE if least else _COLD
        chosen, tried = accept(known or own, weighed, what=f"{least} to {below - 1} items", alone=alone)
        table.append(chosen)
        trials += tried
    chosen, tried = accept(pools, complete(scaled(weights)), what="all hold-out users")
    return [*table, chosen], [*trials, *tried]


def accept(pools: Sequence[Pool], weights: F64, *, what: str, alone: Sequence[int] = _ALONE) -> tuple[F64, list[Trial]]:
    """Return the best of the learned *weights*, each source *alone* and the strongest source sharpened; and the trials."""
    pools = [pool for pool in pools if pool.counts.size]
    if not pools:
        return weights, []
    single = [(each, judge(pools, each, what=what)) for each in np.eye(weights.size)[list(alone)]]
    best_alone, before = max(single, key=lambda pair: pair[1].relative_to(single[0][1]))
    after = judge(pools, weights, what=what)
    chosen, trial = (weights, after) if after.relative_to(before) >= 1 + LEAST_GAIN else (best_alone, before)
    sharpened = [(each, judge(pools, each, what=what)) for each in _sharpen(weights)]
    best, best_trial = max(sharpened, key=lambda pair: pair[1].relative_to(trial))
    tried = [*(each for _, each in single), after]
    if best_trial.relative_to(trial) >= 1 + LEAST_GAIN:
        chosen, tried = best, [*tried, best_trial]
    refined = refine(pools, chosen, weights.nonzero()[0].tolist())
    return refined, tried if refined is chosen else [*tried, judge(pools, refined, what=what)]


def _sharpen(weights: F64) -> Iterator[F64]:
    strongest = np.eye(weights.size)[int(np.argmax(weights))]
    for share in _SHARES:
        yield complete(scaled(strongest + share * weights))
