"""
The baselines that a model must exceed: popularity, item-kNN and a random walk. They need hardly any training.

popularity   training users per item, the same list for every user
cosine       item-kNN: cosine of the item columns over log1p weights, the 100 nearest
BM25         item-kNN on BM25 weights: inner products, the 100 largest
RP3beta      random walk item -> user -> item, discounted by the popularity of the last item, the 200 likeliest

The parameters suit Last.fm 2k; docs/adr/0031-evaluation.md compares the results with those of libraries.

Sources: Sarwar et al. 2001 (item-kNN); Robertson et al. 1994 (BM25); Paudel et al. 2017, "Updatable, accurate, diverse,
and scalable recommendations" (RP3beta).
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from scipy.sparse import csr_array, vstack

from offline.evaluation.quality import DEPTH
from recsys.ranking.item_table import F32, F64, I64

# Maps user rows (B,) to scores (B, I).
Scorer = Callable[[I64], F32]

_BLOCK_ITEMS = 1024


def fit_popularity(weights: csr_array) -> Scorer:
    """Score each item by its number of users."""
    counts = np.bincount(weights.indices, minlength=weights.shape[1]).astype(np.float32)
    return lambda users: np.broadcast_to(counts, (users.size, counts.size))


def fit_cosine(weights: csr_array, *, neighbours: int = 100) -> Scorer:
    """Score by the cosine between items."""
    logs = _with_data(weights, np.log1p(weights.data.astype(np.float64)))
    lengths = np.sqrt(np.bincount(logs.indices, logs.data**2, logs.shape[1]))
    units = _scaled_rows(csr_array(logs.T.tocsr()), 1 / lengths)
    return _gather(logs, _stacked(_products(units, csr_array(units.T.tocsr()), neighbours)))


def fit_bm25(weights: csr_array, *, neighbours: int = 100, saturation: float = 1.2, length: float = 0.75) -> Scorer:
    """Score by inner products of BM25 weights, with items as documents and users as their words."""
    logs = _with_data(weights, np.log1p(weights.data.astype(np.float64)))
    users, items = logs.shape
    owners = np.repeat(np.arange(users), np.diff(logs.indptr))
    totals = np.bincount(logs.indices, logs.data, items)
    norms = (1 - length) + length * totals / totals.mean()
    rarity = np.log(items) - np.log1p(np.bincount(owners, minlength=users))
    data = logs.data * (saturation + 1) / (saturation * norms[logs.indices] + logs.data) * rarity[owners]
    weighted = _with_data(logs, data)
    return _gather(logs, _stacked(_products(csr_array(weighted.T.tocsr()), weighted, neighbours)))


def fit_walk(weights: csr_array, *, beta: float = 0.3, neighbours: int = 200) -> Scorer:
    """
    Score by RP3beta.

    Cost: the sum over users of n^2 multiply-adds.
    """
    ones = _with_data(weights, np.ones(weights.nnz))
    to_item = _normalised(ones)
    to_user = _normalised(csr_array(ones.T.tocsr()))
    discount = np.bincount(ones.indices, minlength=ones.shape[1]).astype(np.float64) ** -beta
    return _gather(ones, _stacked(_walks(to_user, to_item, discount, neighbours)))


BASELINES: Mapping[str, Callable[[csr_array], Scorer]] = {
    "popularity": fit_popularity,
    "item-kNN, cosine": fit_cosine,
    "item-kNN, BM25": fit_bm25,
    "RP3beta": fit_walk,
}


def list_best(scores: F32, consumed: csr_array) -> I64:
    """
    Return each user's DEPTH best columns of *scores* (B, I) without those stored in *consumed*; ties by lower column.

    The list of a user with fewer remaining items is padded with -1.
    """
    open_ = np.array(scores, np.float32)
    open_[np.repeat(np.arange(len(open_)), np.diff(consumed.indptr)), consumed.indices] = -np.inf
    lists = np.full((len(open_), DEPTH), -1, np.int64)
    for row, values in enumerate(open_):
        best = _best(values)
        lists[row, : best.size] = best
    return lists


def _best(values: F32) -> I64:
    depth = min(DEPTH, values.size)
    # All columns that reach the value of the last place are candidates; a stable sort then orders ties by column.
    bound = np.partition(values, -depth)[-depth]
    candidates = np.flatnonzero((values >= bound) & (values > -np.inf))
    return candidates[np.argsort(-values[candidates], kind="stable")][:DEPTH]


def _gather(histories: csr_array, neighbours: csr_array) -> Scorer:
    return lambda users: np.asarray((histories[users] @ neighbours).toarray(), np.float32)


def _products(left: csr_array, right: csr_array, keep: int) -> Iterator[csr_array]:
    for start in range(0, left.shape[0], _BLOCK_ITEMS):
        yield _largest(csr_array(left[start : start + _BLOCK_ITEMS] @ right), keep)


def _walks(to_user: csr_array, to_item: csr_array, discount: F64, keep: int) -> Iterator[csr_array]:
    for start in range(0, to_user.shape[0], _BLOCK_ITEMS):
        walk = csr_array(to_user[start : start + _BLOCK_ITEMS] @ to_item)
        data = walk.data * discount[walk.indices]
        # The walk may not return to the item where it began.
        data[walk.indices == np.repeat(np.arange(walk.shape[0]), np.diff(walk.indptr)) + start] = 0
        yield _largest(_with_data(walk, data), keep)


def _largest(rows: csr_array, keep: int) -> csr_array:
    """Keep the *keep* largest positive entries of each row; ties by lower column."""
    owners = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    order = np.lexsort((rows.indices, -rows.data, owners))
    place = np.arange(rows.nnz) - rows.indptr[owners]
    kept = order[(place < keep) & (rows.data[order] > 0)]
    return csr_array((rows.data[kept].astype(np.float32), (owners[kept], rows.indices[kept])), shape=rows.shape)


def _stacked(blocks: Iterator[csr_array]) -> csr_array:
    return csr_array(vstack(list(blocks), format="csr"))


def _normalised(matrix: csr_array) -> csr_array:
    return _scaled_rows(matrix, 1 / np.maximum(np.asarray(matrix.sum(axis=1), np.float64), 1e-12))


def _scaled_rows(matrix: csr_array, factors: F64) -> csr_array:
    return _with_data(matrix, matrix.data * np.repeat(factors, np.diff(matrix.indptr)))


def _with_data(matrix: csr_array, data: F64) -> csr_array:
    return csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)
