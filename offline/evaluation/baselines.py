"""
The baselines that a model must exceed. They need hardly any training.

popularity         training users per item, the same list for every user
recent popularity  the same over the newest interactions alone
cosine             item-kNN: cosine of the item columns over log1p weights, damped by the support, the 100 nearest
BM25               item-kNN on BM25 weights: inner products, the 100 largest
RP3beta            random walk item -> user -> item, discounted by the popularity of the last item, the 200 likeliest
EASE               linear autoencoder with a closed form over binary interactions
sequential rules   pairs of items in order, at most 20 apart, 1 / distance each, with a discount of well-known sources

All but the popularities let each item of the history vote for other items. If the data has times, votes fade with a
half-life in places of the history, as in the model. `offline/evaluation/tuning.py` chooses each baseline's half-life and
one parameter more.

Items without votes follow in the order of popularity.

Sources: Sarwar et al. 2001 (item-kNN); Robertson et al. 1994 (BM25); Paudel et al. 2017, "Updatable, accurate, diverse,
and scalable recommendations" (RP3beta); Steck 2019 (EASE); Ludewig & Jannach 2018 (sequential rules).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, vstack

from offline.evaluation.histories import Histories
from offline.evaluation.quality import DEPTH
from topk.candidates import rank_candidates
from topk.item_table import F32, F64, I64

# Maps votes (B, I) to scores (B, I).
Scorer = Callable[[csr_array], F32]
# Weighs products (N,) of rows (N,) and columns (N,).
Weigh = Callable[[F64, I64, NDArray[np.int32]], F64]

_NEIGHBOURS = 100
_WALK_NEIGHBOURS = 200
_REACH = 20
_SATURATION, _LENGTH = 1.2, 0.75
# Cells of the tables of scores and of products that are in memory together.
_BLOCK_CELLS = 4_000_000
# Pairs of items of the same history. Larger data are sampled by user before the pairs are counted.
_MOST_PAIRS = 100_000_000
# Beyond this number of items the dense inverse of EASE takes minutes.
_MOST_EASE_ITEMS = 5000
# Small enough to order only items without votes.
_TIE = 1e-9


@dataclass(frozen=True)
class Baseline:
    """
    A baseline and its parameters.

    Attributes:
        name: Name in the report.
        fit: Makes a scorer from the training part and a parameter.
        parameter: Name of the parameter; empty if the baseline has none.
        values: Values to try.
        fades: Whether votes can fade with a half-life.
        logs: Whether votes are log1p weights instead of ones.
        ordered: Whether the baseline needs times.
        most_items: Largest catalogue.
    """

    name: str
    fit: Callable[[Histories, float], Scorer]
    parameter: str = ""
    values: tuple[float, ...] = (0.0,)
    fades: bool = True
    logs: bool = False
    ordered: bool = False
    most_items: float = np.inf

    def obstacle(self, histories: Histories, *, ordered: bool) -> str:
        """Return why the baseline cannot be fitted to *histories*; empty if it can."""
        if self.ordered and not ordered:
            return "needs the times of the interactions"
        if histories.width > self.most_items:
            return f"the dense inverse is too large: {histories.width:,} items, at most {self.most_items:,.0f}"
        return ""


def list_best(score: Scorer, votes: csr_array, histories: Histories, popularity: F64) -> I64:
    """
    Return each user's DEPTH best columns without the items of *histories*, padded with -1; ties by lower column.

    Args:
        score: The fitted baseline.
        votes: (B, I) votes of the histories.
        histories: The B histories.
        popularity: (I,) users per item; it orders items with equal scores of 0.
    """
    scores = np.array(score(votes), np.float32)
    scores += (scores == 0) * (popularity * (_TIE / max(popularity.max(), 1))).astype(np.float32)
    open_ = np.ones(scores.shape, np.bool_)
    open_[histories.owners(), histories.items] = False
    columns = np.broadcast_to(np.arange(histories.width), scores.shape)[open_]
    return rank_candidates(columns, scores[open_], counts=open_.sum(axis=1), limit=DEPTH).ids


def list_by_baseline(baseline: Baseline, score: Scorer, half_life: float, histories: Histories, counts: F64) -> I64:
    """Return the lists (N, DEPTH) for *histories*, in blocks of users; *counts* is the popularity."""
    step = max(1, _BLOCK_CELLS // histories.width)
    return np.concatenate(
        [list_best(score, _votes(baseline, block, half_life), block, counts) for block in histories.blocks(step)]
    )


def _votes(baseline: Baseline, histories: Histories, half_life: float) -> csr_array:
    base = np.log1p(histories.weights) if baseline.logs else 1.0
    return histories.matrix((base * histories.fade(half_life)).astype(np.float32))


def popularity(histories: Histories) -> F64:
    """Return the number of users of each item, (I,)."""
    return np.bincount(histories.items, minlength=histories.width).astype(np.float64)


def fit_popularity(histories: Histories, _: float) -> Scorer:
    """Score each item by its number of users."""
    return _constant(popularity(histories))


def fit_recent_popularity(histories: Histories, share: float) -> Scorer:
    """Score each item by its number of users among the newest *share* of all interactions."""
    newest = histories.times_us >= np.quantile(histories.times_us, 1 - share)
    return _constant(np.bincount(histories.items[newest], minlength=histories.width).astype(np.float64))


def fit_cosine(histories: Histories, damping: float) -> Scorer:
    """Score by the cosine between items, with *damping* added to the product of their lengths."""
    logs = _sampled(histories, squared=True)
    matrix = logs.matrix(np.log1p(logs.weights))
    lengths = np.sqrt(np.bincount(matrix.indices, matrix.data**2, matrix.shape[1]))

    def damped(products: F64, rows: I64, columns: NDArray[np.int32]) -> F64:
        return products / np.maximum(lengths[rows] * lengths[columns] + damping, 1e-12)

    return _gather(_neighbours(_transposed(matrix), matrix, keep=_NEIGHBOURS, weigh=damped))


def fit_bm25(histories: Histories, _: float) -> Scorer:
    """Score by inner products of BM25 weights, with items as documents and users as their words."""
    logs = _sampled(histories, squared=True)
    matrix = logs.matrix(np.log1p(logs.weights))
    items = matrix.shape[1]
    totals = np.bincount(matrix.indices, matrix.data, items)
    norms = (1 - _LENGTH) + _LENGTH * totals / totals.mean()
    rarity = np.log(items) - np.log1p(logs.sizes)
    data = matrix.data * (_SATURATION + 1) / (_SATURATION * norms[matrix.indices] + matrix.data)
    weighted = logs.matrix(data * rarity[logs.owners()])
    return _gather(_neighbours(_transposed(weighted), weighted, keep=_NEIGHBOURS))


def fit_walk(histories: Histories, beta: float) -> Scorer:
    """
    Score by RP3beta.

    Cost: the sum over users of n^2 multiply-adds.
    """
    seen = _sampled(histories, squared=True)
    ones = seen.matrix(np.ones(seen.items.size))
    to_item = _scaled_rows(ones, 1 / np.maximum(seen.sizes, 1))
    counts = np.maximum(popularity(seen), 1)
    to_user = _scaled_rows(_transposed(ones), 1 / counts)

    def discounted(products: F64, rows: I64, columns: NDArray[np.int32]) -> F64:
        # The walk may not return to the item where it began.
        return np.where(rows == columns, 0, products * counts[columns] ** -beta)

    return _gather(_neighbours(to_user, to_item, keep=_WALK_NEIGHBOURS, weigh=discounted))


def fit_ease(histories: Histories, ridge: float) -> Scorer:
    """
    Score by EASE.

    Cost: I^3 multiply-adds and 2 I^2 floats.
    """
    ones = histories.matrix(np.ones(histories.items.size))
    gram = (_transposed(ones) @ ones).toarray()
    gram[np.diag_indices_from(gram)] += ridge
    inverse = np.linalg.inv(gram)
    weights = (inverse / -np.diag(inverse)).astype(np.float32)
    np.fill_diagonal(weights, 0)
    return lambda votes: np.asarray(votes @ weights, np.float32)


def fit_rules(histories: Histories, discount: float) -> Scorer:
    """Score by the items that other users had at most 20 places after an item, 1 / distance each."""
    seen = _sampled(histories, squared=False)
    owners, items = seen.owners()[::-1], seen.items[::-1]
    same = [owners[distance:] == owners[:-distance] for distance in range(1, _REACH + 1)]
    sources = np.concatenate([items[:-distance][kept] for distance, kept in enumerate(same, 1)])
    targets = np.concatenate([items[distance:][kept] for distance, kept in enumerate(same, 1)])
    weights = np.repeat(1 / np.arange(1, _REACH + 1, dtype=np.float32), [kept.sum() for kept in same])
    pairs = csr_array(coo_array((weights, (sources, targets)), (seen.width, seen.width)))
    known = np.maximum(popularity(seen), 1).astype(np.float32)
    return _gather(_scaled_rows(pairs, known ** np.float32(-discount)))


BASELINES: tuple[Baseline, ...] = (
    Baseline("popularity", fit_popularity, fades=False),
    Baseline(
        "popularity, recent",
        fit_recent_popularity,
        "newest share",
        (0.5, 0.2, 0.1, 0.05, 0.02),
        fades=False,
        ordered=True,
    ),
    Baseline("item-kNN, cosine", fit_cosine, "damping", (0.0, 10.0, 100.0), logs=True),
    Baseline("item-kNN, BM25", fit_bm25, logs=True),
    Baseline("RP3beta", fit_walk, "beta", (0.0, 0.3, 0.6)),
    Baseline("EASE", fit_ease, "ridge", (300.0, 100.0, 1000.0), most_items=_MOST_EASE_ITEMS),
    Baseline("sequential rules", fit_rules, "discount", (0.0, 0.5, 1.0), ordered=True),
)


def sampled_share(histories: Histories) -> float:
    """Return the share of users that the pairs of items are counted on; 1 unless the data is large."""
    return min(_sampled(histories, squared=squared).sizes.size for squared in (True, False)) / histories.sizes.size


def _sampled(histories: Histories, *, squared: bool) -> Histories:
    sizes = histories.sizes.astype(np.float64)
    return histories.sample(sizes**2 if squared else 5 * _REACH * sizes, _MOST_PAIRS)


def _constant(counts: F64) -> Scorer:
    scores = counts.astype(np.float32)
    return lambda votes: np.broadcast_to(scores, (votes.shape[0], scores.size))


def _gather(neighbours: csr_array) -> Scorer:
    return lambda votes: np.asarray((votes @ neighbours).toarray(), np.float32)


def _neighbours(left: csr_array, right: csr_array, *, keep: int, weigh: Weigh | None = None) -> csr_array:
    """Return the *keep* largest positive entries of each row of *left* @ *right*, weighed by *weigh*, in blocks of rows."""
    step = max(1, _BLOCK_CELLS // right.shape[1])
    parts = []
    for start in range(0, left.shape[0], step):
        products = csr_array(left[start : start + step] @ right)
        if weigh:
            rows = np.repeat(np.arange(products.shape[0]) + start, np.diff(products.indptr))
            weights = weigh(products.data, rows, products.indices)
            products = csr_array((weights, products.indices, products.indptr), products.shape)
        parts.append(_largest(products, keep))
    return csr_array(vstack(parts, format="csr"))


def _largest(rows: csr_array, keep: int) -> csr_array:
    """Keep the *keep* largest positive entries of each row; ties by lower column."""
    best = rank_candidates(
        rows.indices.astype(np.int64), rows.data.astype(np.float32), counts=np.diff(rows.indptr), limit=keep
    )
    kept = best.scores > 0
    owners = np.broadcast_to(np.arange(rows.shape[0])[:, None], kept.shape)
    return csr_array(coo_array((best.scores[kept], (owners[kept], best.ids[kept])), rows.shape))


def _transposed(matrix: csr_array) -> csr_array:
    return csr_array(matrix.T.tocsr())


def _scaled_rows(matrix: csr_array, factors: F64 | F32) -> csr_array:
    data = matrix.data * np.repeat(factors, np.diff(matrix.indptr))
    return csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)
