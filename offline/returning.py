"""
Learn what suits users who return after they were away.

The hold-out per user asks for the items that immediately follow a user's newest ones. Taste changes with time, and
this hold-out does not show it. The hold-out here is at a date: the training data before it, and the users who return after
it and were away on that date. On these users, `train` chooses the half-life of recent popularity, then the weights of
all sources. If too few users return, their weights are those of all users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec
import numpy as np
from scipy.sparse import csr_array

from offline.evaluation.holdout import SHARE
from offline.evaluation.quality import DEPTH, Task, make_task, score_lists
from offline.evaluation.trials import Trial
from offline.pooling import Fitted, Pool, Sources, complete, learn, pool_of_task
from offline.recency import Timeline
from offline.training import ModelSettings
from offline.weighing import scaled
from recsys.ranking.artefact import Item
from recsys.ranking.blending import AWAY_US
from recsys.records import UserRecord
from topk.item_table import F32, F64, I64

HALF_LIVES = (0.1, 0.05, 0.02, 0.01, 0.005)
# The half-life of recent popularity if no hold-out can judge it.
RECENT = 0.05
LEAST_GAIN = 0.01
SURE = 2.0
_FEWEST_USERS = 50


@dataclass(frozen=True)
class Returning:
    """
    The hold-out at a date.

    Attributes:
        task: The training data before the date, and the users who return after it.
    """

    task: Task

    @classmethod
    def of(cls, records: Sequence[UserRecord], *, most: int) -> "Returning | None":
        """Split *records*, which all have times, at a date; return None if fewer than 50 users return, else *most*."""
        times = np.sort([item.time_us for record in records for item in record.history])
        date_us = int(times[times.size - max(times.size // SHARE, 1)])
        before, held = [], {}
        for record in records:
            new = sum(item.time_us >= date_us for item in record.history)
            if new < len(record.history):
                before.append(msgspec.structs.replace(record, history=record.history[new:]))
                if new and date_us - record.history[new].time_us >= AWAY_US:
                    held[record.user_id] = [item.item_id for item in record.history[:new]]
        return cls(make_task(before, held, most=most)) if len(held) >= _FEWEST_USERS else None

    def choose_recent(self) -> tuple[float, list[Trial]]:
        """Return the half-life with which recent popularity alone finds most, and the trials."""
        timeline = Timeline.of(self.task.records, self.task.ratings)
        known = self.task.ratings.weights[self.task.users]
        trials = [
            Trial.judge(
                f"users who return: popularity with half-life {half_life:g}",
                _list_popular(timeline.popularity(half_life), known),
                self.task.held,
            )
            for half_life in HALF_LIVES
        ]
        best = int(np.argmax([trial.relative_to(trials[0]) for trial in trials]))
        return HALF_LIVES[best], trials

    def choose_weights(
        self, settings: ModelSettings, sources: Sources, items: Mapping[str, Item], *, start: F64, usual: F64
    ) -> tuple[F64 | None, list[Trial]]:
        """
        Return the weights for users who return, and the trials; None if they should have the weights of the others.

        Each half of the users is judged with weights that the other half learned. Users who return are few, and weights
        look better on the users who learned them.

        Args:
            settings: Settings of the factors.
            sources: The sources.
            items: Attributes by item id.
            start: The weights of all users, in the units of the softmax.
            usual: The same, scaled. Others must gain at least `LEAST_GAIN` and `SURE` standard errors.
        """
        fitted = Fitted.to(self.task.records, settings, items, ordered=True)
        pool = pool_of_task(fitted, self.task, sources)
        halves = [np.arange(pool.counts.size) % 2 == half for half in range(2)]
        lists = np.full((pool.counts.size, DEPTH), -1, np.int64)
        for half, other in zip(halves, halves[::-1], strict=True):
            lists[half] = pool.only(half).lists(_learn(pool.only(other), start))
        usual_lists = pool.lists(usual)
        before = Trial.judge("users who return: usual weights", usual_lists, self.task.held)
        after = Trial.judge("users who return: weights of the other half", lists, self.task.held)
        gains = _relative_gains(lists, usual_lists, self.task.held, before)
        error = float(gains.std()) / gains.size**0.5
        if gains.mean() < max(LEAST_GAIN, SURE * error):
            return None, [before, after]
        weights = _learn(pool, start)
        return weights, [before, after, pool.judge(weights, what="users who return")]


def _learn(pool: Pool, start: F64) -> F64:
    return complete(scaled(learn([pool], start, range(len(start)))))


def _relative_gains(lists: I64, others: I64, held: csr_array, base: Trial) -> F64:
    """Return how much better each of *lists* is than that of *others*, as a share of the means *base*."""
    pairs = zip(score_lists(lists, held), score_lists(others, held), (base.ndcg_10, base.recall_20), strict=True)
    gains: F64 = np.asarray([(one - other) / max(mean, 1e-9) for one, other, mean in pairs])
    return np.asarray(gains.mean(axis=0), np.float64)


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
