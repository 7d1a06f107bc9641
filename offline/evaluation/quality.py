"""The measures: NDCG@10, Recall@20, coverage, popularity bias, and bootstrap intervals over users."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from offline.matrix import Ratings, make_ratings
from recsys.ranking.item_table import F64, I64
from recsys.records import UserRecord

DEPTH, NDCG_DEPTH = 20, 10
DRAWS, LEVEL = 2000, 0.95

_DISCOUNT = 1 / np.log2(np.arange(2, NDCG_DEPTH + 2))
_IDEAL = np.cumsum(_DISCOUNT)


@dataclass(frozen=True)
class Task:
    """
    The users to recommend to, and the held-out items to find.

    Attributes:
        ratings: The training part.
        records: The training part as user records, in the order of the rows of *ratings*.
        users: (N,) int64, rows of the users with held-out items.
        held: (N, W) held-out items of these users. The first columns are those of *ratings*; items that are not in the
            training part follow.
        columns: Column of each item id.
        popularity: (W,) int64, training users per item.
    """

    ratings: Ratings
    records: Sequence[UserRecord]
    users: I64
    held: csr_array
    columns: Mapping[str, int]
    popularity: I64


def make_task(records: Sequence[UserRecord], held_out: Mapping[str, Sequence[str]], *, most: int | None = None) -> Task:
    """
    Return the task of finding *held_out* from *records*.

    Args:
        records: The training part.
        held_out: Held-out item ids by user.
        most: Largest number of users; more users are sampled at random. None keeps all users.
    """
    ratings = make_ratings(records)
    columns = {item_id: column for column, item_id in enumerate(ratings.item_ids)}
    for item_ids in held_out.values():
        for item_id in item_ids:
            columns.setdefault(item_id, len(columns))
    users = np.array([row for row, user_id in enumerate(ratings.user_ids) if held_out.get(user_id)], np.int64)
    if most is not None and users.size > most:
        users = np.sort(np.random.default_rng(0).permutation(users)[:most])
    held = hold([held_out[ratings.user_ids[row]] for row in users], columns)
    popularity = np.bincount(ratings.weights.indices, minlength=len(columns)).astype(np.int64)
    return Task(ratings, records, users, held, columns, popularity)


def hold(wanted: Sequence[Sequence[str]], columns: Mapping[str, int]) -> csr_array:
    """Return held-out items as a matrix with one row per list of *wanted*; *columns* must contain all the items."""
    ends = np.concatenate(([0], np.cumsum([len(each) for each in wanted], dtype=np.int64)))
    indices = np.array([columns[item_id] for each in wanted for item_id in each], np.int64)
    return csr_array((np.ones(indices.size), indices, ends), shape=(len(wanted), len(columns)))


@dataclass(frozen=True)
class Quality:
    """
    The quality of a model's lists.

    Attributes:
        ndcg: (N,) NDCG@10 of each user.
        recall: (N,) Recall@20 of each user, over all held-out items, also those that are not in the training part.
        coverage: Share of the catalogue that appears in at least one list.
        popularity_bias: Mean training popularity of listed items, divided by that of held-out items; 1 is unbiased.
    """

    ndcg: F64
    recall: F64
    coverage: float
    popularity_bias: float


def measure(lists: I64, task: Task) -> Quality:
    """
    Measure *lists* (N, DEPTH) of columns of *task*, best first, padded with -1.

    Cost: O(N * DEPTH * log(N * DEPTH)) and N * DEPTH * 8 bytes of scratch.
    """
    listed = lists[lists >= 0]
    ndcg, recall = score_lists(lists, task.held)
    return Quality(
        ndcg=ndcg,
        recall=recall,
        coverage=np.unique(listed).size / len(task.ratings.item_ids),
        popularity_bias=_ratio(task.popularity[listed], task.popularity[task.held.indices]),
    )


def score_lists(lists: I64, held: csr_array) -> tuple[F64, F64]:
    """Return NDCG@10 and Recall@20 of every list of *lists* (N, DEPTH) for the held-out items *held* (N, W)."""
    sizes = np.diff(held.indptr)
    hits = _hits(lists, held)
    ndcg = hits[:, :NDCG_DEPTH] @ _DISCOUNT / _IDEAL[np.minimum(sizes, NDCG_DEPTH) - 1]
    return ndcg, hits.sum(axis=1) / sizes


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap(values: F64, *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """
    Return the mean of *values* (N,) with its bootstrap percentile interval, for which users are drawn with replacement.

    The interval covers the choice of users. It does not cover the effect of another split or another training.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    generator = np.random.default_rng(seed)
    means = [values[generator.integers(0, values.size, values.size)].mean() for _ in range(draws)]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def _hits(lists: I64, held: csr_array) -> F64:
    """Return 1.0 where lists[u, place] is held out for u."""
    users, width = held.shape
    wanted = np.repeat(np.arange(users), np.diff(held.indptr)) * width + held.indices
    found = np.isin(np.arange(users)[:, None] * width + lists, wanted) & (lists >= 0)
    return found.astype(np.float64)


def _ratio(values: I64, reference: I64) -> float:
    """Return the ratio of the means; 0 if either is empty or the mean of *reference* is 0."""
    base = float(reference.mean()) if reference.size else 0.0
    return float(values.mean()) / base if base and values.size else 0.0
