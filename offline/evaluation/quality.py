"""The measures: NDCG@10, Recall@20, coverage, popularity bias, and bootstrap intervals over users."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
from scipy.sparse import csr_array

from offline.matrix import Ratings, make_ratings
from recsys.records import UserRecord
from topk.item_table import F64, I64

DEPTH, NDCG_DEPTH = 20, 10
DRAWS, LEVEL = 2000, 0.95
_BLOCK_DRAWS = 2_000_000

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

    @property
    def panel(self) -> "Panel":
        """The users and their held-out items, without the training part."""
        asked = [self.records[row] for row in self.users]
        return Panel(asked, self.held, self.columns, self.popularity, len(self.ratings.item_ids))


def make_task(records: Sequence[UserRecord], held_out: Mapping[str, Sequence[str]], *, most: int | None = None) -> Task:
    """
    Return the task of finding *held_out* from *records*.

    Args:
        records: The training part.
        held_out: Held-out item ids by user.
        most: Largest number of users; more users are sampled at random. None keeps all users.
    """
    ratings = make_ratings(records)
    columns = number_columns(ratings.item_ids, held_out.values())
    users = np.array([row for row, user_id in enumerate(ratings.user_ids) if held_out.get(user_id)], np.int64)
    if most is not None and users.size > most:
        users = np.sort(np.random.default_rng(0).permutation(users)[:most])
    held = hold([held_out[ratings.user_ids[row]] for row in users], columns)
    popularity = np.bincount(ratings.weights.indices, minlength=len(columns)).astype(np.int64)
    return Task(ratings, records, users, held, columns, popularity)


def number_columns(catalogue: Iterable[str], held_out: Iterable[Sequence[str]]) -> dict[str, int]:
    """Return the column of each item: those of the *catalogue* come first, then other *held_out* items."""
    return {item_id: column for column, item_id in enumerate(dict.fromkeys(chain(catalogue, *held_out)))}


def hold(wanted: Sequence[Sequence[str]], columns: Mapping[str, int]) -> csr_array:
    """Return held-out items as a matrix with one row per list of *wanted*; *columns* must contain all the items."""
    ends = np.concatenate(([0], np.cumsum([len(each) for each in wanted], dtype=np.int64)))
    indices = np.array([columns[item_id] for each in wanted for item_id in each], np.int64)
    return csr_array((np.ones(indices.size), indices, ends), shape=(len(wanted), len(columns)))


@dataclass(frozen=True)
class Panel:
    """
    Users to recommend to, and the held-out items to find.

    Attributes:
        records: (N) the known part of each user's record.
        held: (N, W) held-out items of these users. The first columns are the catalogue of the training part; items that
            are not in the training part follow.
        columns: Column of each item id.
        popularity: (W,) int64, training users per item.
        catalogue: Number of items in the training part.
        times_us: Time of each user's request, microseconds since the epoch. Users without a time ask right after the
            newest interaction of the record.
    """

    records: Sequence[UserRecord]
    held: csr_array
    columns: Mapping[str, int]
    popularity: I64
    catalogue: int
    times_us: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, ratings: Ratings, records: Sequence[UserRecord], held_out: Sequence[Sequence[str]]) -> "Panel":
        """Return the panel of *records*, whose *held_out* items are to be found by models trained on *ratings*."""
        columns = number_columns(ratings.item_ids, held_out)
        popularity = np.bincount(ratings.weights.indices, minlength=len(columns)).astype(np.int64)
        return cls(records, hold(held_out, columns), columns, popularity, len(ratings.item_ids))

    def asked_at(self, record: UserRecord) -> int | None:
        """Return the time of the request for the user of *record*; None if it is unknown."""
        return self.times_us.get(record.user_id, record.as_of_us)

    def new_items(self) -> "Panel":
        """Return the users with held-out items that are not in the training part, and these items alone."""
        held = self.held.copy()
        held.data = (held.indices >= self.catalogue).astype(np.float64)
        held.eliminate_zeros()
        users = np.diff(held.indptr).nonzero()[0].tolist()
        return replace(self, records=[self.records[user] for user in users], held=csr_array(held[users]))


@dataclass(frozen=True)
class Quality:
    """
    The quality of a model's lists.

    Attributes:
        ndcg: (N,) NDCG@10 of each user.
        recall: (N,) Recall@20 of each user, over all held-out items, also those that are not in the training part.
        recall_reachable: (N,) the same over the number of held-out items or 20, if that is less; it can reach 1.
        coverage: Share of the catalogue that appears in at least one list.
        popularity_bias: Mean training popularity of listed items, divided by that of held-out items; 1 is unbiased.
    """

    ndcg: F64
    recall: F64
    recall_reachable: F64
    coverage: float
    popularity_bias: float


def measure(lists: I64, panel: Panel) -> Quality:
    """
    Measure *lists* (N, DEPTH) of columns of *panel*, best first, padded with -1.

    Cost: O(N * DEPTH * log(N * DEPTH)) and N * DEPTH * 8 bytes of scratch.
    """
    listed = lists[lists >= 0]
    ndcg, recall = score_lists(lists, panel.held)
    sizes = np.diff(panel.held.indptr)
    return Quality(
        ndcg=ndcg,
        recall=recall,
        recall_reachable=recall * sizes / np.minimum(sizes, DEPTH),
        coverage=np.unique(listed).size / panel.catalogue,
        popularity_bias=_ratio(panel.popularity[listed], panel.popularity[panel.held.indices]),
    )


def score_lists(lists: I64, held: csr_array) -> tuple[F64, F64]:
    """Return NDCG@10 and Recall@20 of every list of *lists* (N, DEPTH) for the held-out items *held* (N, W)."""
    sizes = np.diff(held.indptr)
    hits = _hits(lists, held)
    ndcg = hits[:, :NDCG_DEPTH] @ _DISCOUNT / _IDEAL[np.minimum(sizes, NDCG_DEPTH) - 1]
    return ndcg, hits.sum(axis=1) / sizes


@dataclass(frozen=True)
class MeanInterval:
    """A mean and its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap(values: F64) -> list[MeanInterval]:
    """
    Return the mean of each column of *values* (N, C) with its bootstrap percentile interval.

    Users are drawn with replacement, the same ones for all columns, so the interval of a difference of two columns is
    that of paired users. An interval covers the choice of users. It does not cover the effect of another split or
    another training.

    Cost: DRAWS * N random numbers and DRAWS * N * C multiply-adds.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    users = len(values)
    generator = np.random.default_rng(0)
    step = max(1, _BLOCK_DRAWS // users)
    means = np.concatenate(
        [_draw(generator, users, min(step, DRAWS - start)) @ values for start in range(0, DRAWS, step)]
    )
    low, high = np.quantile(means / users, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    triples = zip(values.mean(axis=0).tolist(), low.tolist(), high.tolist(), strict=True)
    return [MeanInterval(*triple) for triple in triples]


def _draw(generator: np.random.Generator, users: int, draws: int) -> F64:
    """Return how often each user is drawn, (draws, users)."""
    cells = generator.integers(0, users, (draws, users)) + np.arange(draws)[:, None] * users
    return np.bincount(cells.reshape(-1), minlength=draws * users).reshape(draws, users).astype(np.float64)


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
