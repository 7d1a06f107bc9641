"""
Learn what suits users who return after they were away.

The hold-out per user asks for the items that immediately follow a user's newest ones. Taste changes with time, and
this hold-out does not show it. The hold-outs here are at dates: the training data before a date, and the users who
return after it and were away on that date. Such users are few, so a second hold-out at an earlier date lowers the noise
of the decision. On these users, `train` chooses the half-life of recent popularity, then the weights of all sources. If
too few users return, their weights are those of all users.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

from offline.dates import FEWEST_USERS, Dated
from offline.evaluation.quality import DEPTH, Task, make_task, score_lists
from offline.evaluation.trials import Trial
from offline.folds import FittedSources, pool_of_task
from offline.pools import Pool, Sources, complete, learn, name_weights
from offline.recency import Timeline
from offline.refinement import relative_gains, standard_error
from offline.source_weights import scaled
from topk.item_table import F32, F64, I64

HALF_LIVES = (0.1, 0.05, 0.02, 0.01, 0.005)
# The half-life of recent popularity if no hold-out can judge it.
RECENT = 0.05
LEAST_GAIN = 0.01
SURE = 1.0


@dataclass(frozen=True)
class Returning:
    """
    The hold-outs at dates.

    Attributes:
        tasks: For each date, newest first, the training data before it and the users who return between it and the
            date after it.
    """

    tasks: Sequence[Task]

    @classmethod
    def of(cls, dates: Sequence[Dated], *, most: int) -> "Returning | None":
        """
        Hold out the users who return after *dates*.

        Returns:
            The hold-outs with at least 50 users who return, at most *most* of them; None if the newest date
            has fewer.
        """
        tasks: list[Task] = []
        for date in dates:
            if len(date.returned) < FEWEST_USERS:
                break
            tasks.append(make_task(date.before, date.returned, most=most))
        return cls(tasks) if tasks else None

    def choose_recent(self) -> tuple[float, list[Trial]]:
        """Return the half-life with which recent popularity alone finds most, and the trials."""
        timelines = [Timeline.of(task.records, task.ratings) for task in self.tasks]
        known = [task.ratings.weights[task.users] for task in self.tasks]
        trials = []
        for half_life in HALF_LIVES:
            popular = [timeline.popularity(half_life) for timeline in timelines]
            lists = [_list_popular(*each) for each in zip(popular, known, strict=True)]
            what = f"users who return: popularity with half-life {half_life:g}"
            trials.append(_judge(what, _measure(lists, self.tasks)))
        best = int(np.argmax([trial.relative_to(trials[0]) for trial in trials]))
        return HALF_LIVES[best], trials

    def choose_weights(
        self, fits: Sequence[FittedSources], sources: Sources, *, start: F64, usual: F64
    ) -> tuple[F64 | None, list[Trial]]:
        """
        Return the weights for users who return, and the trials; None if they should have the weights of the others.

        Each half of the users is judged with weights that the other half learned. Users who return are few, and weights
        look better on the users who learned them.

        Args:
            fits: For each date, the sources fitted to the data before it.
            sources: The sources.
            start: The weights of all users, in the units of the softmax.
            usual: The same, scaled. Others must gain at least `LEAST_GAIN` and `SURE` standard errors.
        """
        pools = [pool_of_task(fitted, task, sources) for fitted, task in zip(fits, self.tasks, strict=False)]
        weights = _learn(pools, start)
        crossed, usually, learned = (
            _measure(lists, self.tasks)
            for lists in (
                _list_crosswise(pools, start),
                [pool.lists(usual) for pool in pools],
                [pool.lists(weights) for pool in pools],
            )
        )
        before = _judge("users who return: usual weights", usually)
        after = _judge("users who return: weights of the other half", crossed)
        gains = relative_gains(crossed, usually)
        if gains.mean() < max(LEAST_GAIN, SURE * standard_error(gains)):
            return None, [before, after]
        name = name_weights(weights, sources.views)
        return weights, [before, after, _judge(f"users who return: {name}", learned)]


def _list_crosswise(pools: Sequence[Pool], start: F64) -> list[I64]:
    """Return the lists of each half of the users of *pools*, with the weights that the other half learned."""
    halves = [[np.arange(pool.counts.size) % 2 == half for pool in pools] for half in range(2)]
    lists = [np.full((pool.counts.size, DEPTH), -1, np.int64) for pool in pools]
    for half, other in zip(halves, halves[::-1], strict=True):
        weights = _learn([pool.only(users) for pool, users in zip(pools, other, strict=True)], start)
        for found, pool, users in zip(lists, pools, half, strict=True):
            found[users] = pool.only(users).lists(weights)
    return lists


def _measure(lists: Sequence[I64], tasks: Sequence[Task]) -> F64:
    """Return NDCG@10 and Recall@20 (2, N) of the users of all *tasks*, which have one array of *lists* each."""
    scores = [score_lists(found, task.held) for found, task in zip(lists, tasks, strict=True)]
    return np.concatenate([np.stack(each) for each in scores], axis=1)


def _judge(what: str, measures: F64) -> Trial:
    return Trial(what, *measures.mean(axis=1).tolist())


def _learn(pools: Sequence[Pool], start: F64) -> F64:
    return complete(scaled(learn(pools, start, range(len(start)))))


def _list_popular(popularity: F32, known: csr_array) -> I64:
    """Return each user's DEPTH most popular columns without the *known* ones (U, I), padded with -1."""
    order = np.argsort(-popularity, kind="stable")
    lists = np.full((known.shape[0], DEPTH), -1, np.int64)
    for user, (start, end) in enumerate(pairwise(known.indptr)):
        # The first DEPTH + n columns have DEPTH columns that a user with n known ones does not know.
        leaders = order[: DEPTH + end - start]
        best = leaders[~np.isin(leaders, known.indices[start:end])][:DEPTH]
        lists[user, : best.size] = best
    return lists
