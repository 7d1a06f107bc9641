"""
Rank by the blend of several sources' scores.

A small catalogue is scored completely: every source scores every item. A large one is ranked in three steps:

1. Every source (factors, popularity of all times, recent popularity, neighbours) proposes each user's best items.
2. Every source scores the union of the proposals.
3. The blend (`blend`) combines the scores of each item into one, and the best items are returned.

With a ranker (`ranker`), the blend returns a shortlist for the ranker instead.

Each source leaves out excluded and unavailable items before it proposes, so they do not reduce the number of proposals.
Neighbours that have no weight for the length of a user's history do not vote for that user.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from recrank.artefact import Arrays
from recrank.blend import Blend, blend, normalise
from recrank.filters import Bools
from recrank.neighbours import KNOWN, Neighbours, Scored, Views
from recrank.phases import Phases
from recrank.ranker import SHORTLIST, Shortlist, cut
from recrank.request_rows import Asked
from topk.candidates import RankedBatch, rank_candidates, rank_table
from topk.item_table import F64, I64, ItemTable
from topk.scoring import score_catalogue, score_rows

# Items that each source proposes for a user; a request for more items gets more proposals.
PROPOSALS = 100

# Each popularity proposes fewer, because other sources propose most of its items too.
_POPULAR = 50

# The columns of weights; those of the views follow.
FACTORS, POPULARITY, RECENT_POPULARITY = range(3)
FIXED_SOURCES = 3


@dataclass(frozen=True, slots=True)
class Mixer:
    """
    All sources and their weights in the blend.

    Attributes:
        table: Factors of the catalogue.
        popularity: (2, I) float64, users per item as a share of the most popular item's; of all times, then recent.
        popular: Two (I,) int64, rows by falling popularity; of all times, then recent.
        leaders: The first rows of both.
        views: Item-to-item sources.
        blend: Weights of the factors, of both popularities and of each view, in this order.
    """

    table: ItemTable
    popularity: F64
    popular: tuple[I64, I64]
    leaders: I64
    views: Views
    blend: Blend

    @classmethod
    def of(cls, arrays: Arrays, table: ItemTable, popular: I64) -> Self:
        """
        Read the sources of an artefact with the factors *table*; without a blend, the factors alone have a weight.

        Args:
            arrays: The arrays of the artefact.
            table: Factors of the catalogue.
            popular: (I,) rows by falling popularity of all times.

        Raises:
            KeyError, ValueError: an array is missing, or does not fit the others.
        """
        arrays = _blended(arrays)
        neighbours = [
            Neighbours(
                arrays[f"neighbours_{source}_ends"],
                arrays[f"neighbours_{source}_items"],
                arrays[f"neighbours_{source}_weights"],
                half_life,
            )
            for source, half_life in enumerate(arrays["neighbours_half_lives"].tolist())
        ]
        views = Views.of(neighbours, items=popular.size, known=int(arrays.get(KNOWN, (popular.size,))[0]))
        weights = Blend(arrays["blend_lengths"], arrays["blend_weights"], arrays.get("blend_away"))
        weights.check(sources=FIXED_SOURCES + len(neighbours))
        counts = (arrays["item_popularity"], arrays["item_recent_popularity"])
        popularity = np.stack(counts).astype(np.float64)
        popularity /= np.maximum(popularity.max(axis=1, keepdims=True), 1e-9)
        recent = np.lexsort((popular.argsort(), -popularity[1]))
        leaders = np.concatenate([order[:_POPULAR] for order in (popular, recent)])
        return cls(table, popularity, (popular, recent), leaders, views, weights)

    def rank_all(self, asked: Asked, *, limit: int, phases: Phases) -> RankedBatch:
        """
        Return each user's *limit* best items of a small catalogue.

        Row u equals, bit for bit, the answer for a batch holding only user u: the sums of the factors are exact, and
        every other step works on one cell.

        Args:
            asked: The batch.
            limit: Items wanted per user.
            phases: The stopwatch of the batch.

        Cost: a few passes over S * U * I scores.
        """
        weights = self.blend.rows(asked.history.sizes(), asked.away).T.astype(np.float64)
        closed = asked.closed(self.popularity.shape[1])
        factors = score_catalogue(asked.vectors, self.table)[None]
        wanted = weights[FIXED_SOURCES:] > 0
        votes = self.views.score_all(asked.history, wanted=wanted) if wanted.any() else None
        phases.end("candidates")
        total = _weighed(factors, weights[:1], closed)[0]
        if votes is not None:
            for scores in _weighed(votes, weights[FIXED_SOURCES:], closed):
                total += scores
        for each, popularity in zip(weights[POPULARITY:FIXED_SOURCES], self.popularity, strict=True):
            if each.any():
                total += each[:, None] * popularity
        scores = total.astype(np.float32)
        scores.reshape(-1)[closed] = -np.inf
        return rank_table(scores, limit=limit)

    def rank(self, asked: Asked, found: RankedBatch, *, limit: int, phases: Phases) -> RankedBatch:
        """
        Return each user's *limit* best items of the union of all proposals.

        Row u equals, bit for bit, the answer for a batch holding only user u.

        Args:
            asked: The batch.
            found: The proposals of the factors; the largest of *asked.depths* per user.
            limit: Items wanted per user, at most the smallest of *asked.depths*.
            phases: The stopwatch of the batch.

        Cost: per user, a sort of the neighbours of the items that vote, and D multiply-adds for each candidate.
        """
        weights = self.blend.rows(asked.history.sizes(), asked.away)
        rows, counts, columns = self._collect(asked, found, wanted=weights[:, FIXED_SOURCES:].T > 0)
        phases.end("candidates")
        return rank_candidates(rows, blend(columns, weights, counts), counts=counts, limit=limit)

    def shortlist_all(self, asked: Asked, *, phases: Phases) -> Shortlist:
        """
        Return the best items of a small catalogue for each user, with the scores of every source.

        Each user's part has the same bits as in a batch holding only that user, as in `rank_all`.
        """
        users, items = asked.depths.size, self.popularity.shape[1]
        closed = asked.closed(items)
        ones = np.ones((1 + self.views.number, users))
        (factors,) = _weighed(score_catalogue(asked.vectors, self.table)[None], ones[:1], closed)
        votes = self.views.score_all(asked.history, wanted=np.ones((self.views.number, users), np.bool_))
        phases.end("candidates")
        votes = _weighed(votes, ones[1:], closed)
        columns = [factors, *self.popularity, *votes]
        weights = self.blend.rows(asked.history.sizes(), asked.away).astype(np.float64)
        total = np.zeros(factors.shape)
        for source in np.flatnonzero(weights.any(axis=0)).tolist():
            total += weights[:, source, None] * columns[source]
        scores = total.astype(np.float32)
        scores.reshape(-1)[closed] = -np.inf
        depths = self._depths(asked)
        owners, rows, counts, best = cut(rank_table(scores, limit=int(depths.max())), depths)
        cells = owners * items + rows
        voted = votes.reshape(self.views.number, factors.size).take(cells, axis=1)
        shares = np.concatenate([factors.take(cells)[None], self.popularity.take(rows, axis=1), voted])
        return Shortlist(rows, counts, best, shares)

    def shortlist(self, asked: Asked, found: RankedBatch, *, phases: Phases) -> Shortlist:
        """Return the best items of the union of all proposals, as `shortlist_all`; *found* as in `rank`."""
        rows, counts, columns = self.candidates(asked, found)
        phases.end("candidates")
        scores = blend(columns, self.blend.rows(asked.history.sizes(), asked.away), counts)
        depths = self._depths(asked)
        # The rows of each user's candidates rise, so their places order ties as the rows do.
        ranked = rank_candidates(np.arange(rows.size), scores, counts=counts, limit=int(depths.max()))
        _, places, kept, scores = cut(ranked, depths)
        return Shortlist(rows[places], kept, scores, columns.take(places, axis=1))

    def _depths(self, asked: Asked) -> I64:
        """Return the length of each user's shortlist, which depends on that user's request alone."""
        return np.minimum(np.maximum(asked.depths, SHORTLIST), self.popularity.shape[1])

    def candidates(self, asked: Asked, found: RankedBatch) -> tuple[I64, I64, F64]:
        """Return the union of all proposals: rows (N,) grouped by user, counts (U,), scores (S, N) of each source."""
        return self._collect(asked, found, wanted=np.ones((self.views.number, asked.depths.size), np.bool_))

    def _collect(self, asked: Asked, found: RankedBatch, *, wanted: Bools) -> tuple[I64, I64, F64]:
        users, items = asked.depths.size, self.popularity.shape[1]
        closed = np.sort(asked.exclude.cells(items))
        # Cells of a view's lines follow those of the view before; see `Scored`.
        views = np.arange(self.views.number)[:, None] * (users * items)
        scored = self.views.score(asked.history, wanted=wanted).without((views + closed).reshape(-1))
        is_open = asked.is_open(scored.cells, items)
        if is_open is not None:
            scored = Scored(scored.cells[is_open], scored.scores[is_open])
        best = scored.best(lines=wanted.size, items=items, limit=int(asked.depths.max()))
        proposed = _cells(np.concatenate([found.ids, best.ids]), asked.depths, items)
        cells = _distinct(np.concatenate([proposed, self._popular_cells(asked, closed)]))
        owners = cells // items
        rows, counts = cells - owners * items, np.bincount(owners, minlength=users)
        votes = scored.at((views + cells).reshape(-1)).reshape(self.views.number, cells.size)
        bests = best.scores[:, 0].reshape(self.views.number, users)
        factors = score_rows(asked.vectors, self.table, rows, counts=counts)
        shares = normalise(np.vstack([factors, votes]), np.vstack([found.scores[:, 0], bests]), counts)
        return rows, counts, np.concatenate([shares[:1], self.popularity.take(rows, axis=1), shares[1:]])

    def _popular_cells(self, asked: Asked, closed: I64) -> I64:
        """Return the cells of each user's most popular items, of all times and recent, without the *closed* cells, which rise."""
        rows = [
            self.leaders if each is None else np.concatenate([each.popular(order, _POPULAR) for order in self.popular])
            for each in asked.subsets
        ]
        starts = np.arange(0, len(rows) * self.popularity.shape[1], self.popularity.shape[1])
        cells: I64 = np.concatenate(rows) + (starts if len(rows) == 1 else starts.repeat([each.size for each in rows]))
        if not closed.size:
            return cells
        nearest = closed.take(closed.searchsorted(cells), mode="clip")
        return np.asarray(cells[nearest != cells], np.int64)


def _blended(arrays: Arrays) -> Arrays:
    """Return *arrays* with a blend that ranks by the factors, if they have no blend."""
    if "blend_weights" in arrays:
        return arrays
    return {
        **arrays,
        "item_recent_popularity": arrays["item_popularity"],
        "neighbours_half_lives": np.empty(0),
        "blend_lengths": np.zeros(1, np.int64),
        "blend_weights": np.array([[1, 0, 0]], np.float32),
    }


def _weighed(scores: F64, weights: F64, closed: I64) -> F64:
    """
    Normalise each line of *scores* by its best open score, and multiply it by its weight.

    Args:
        scores: (S, U, I), changed: the memory of the result.
        weights: (S, U).
        closed: Cells, user * I + row, that do not count; they get 0.
    """
    # An explicit width, because numpy cannot derive it without any source.
    scores.reshape(len(scores), weights.shape[1] * scores.shape[2])[:, closed] = 0
    best = scores.max(axis=2)
    scores *= np.divide(weights, best, out=np.zeros(best.shape), where=best > 0)[:, :, None]
    return scores


def _cells(ids: I64, depths: I64, items: int) -> I64:
    """Return the items in the first *depths* (U,) places of each user's lists, *ids* (S * U, limit), as cells."""
    width = ids.shape[1]
    lists = ids.reshape(-1, depths.size, width)
    kept = lists >= 0
    if depths.min() < width:
        kept &= np.arange(width) < depths[:, None]
    return np.asarray((lists + np.arange(0, depths.size * items, items)[:, None])[kept], np.int64)


def _distinct(cells: I64) -> I64:
    """Return the distinct *cells* in rising order, several times as fast as `np.unique`, which hashes."""
    ordered = np.sort(cells)
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))] if ordered.size else ordered
