"""
Collect candidates from several sources and rank them by the blend of their scores.

1. Every source (factors, popularity, neighbours) proposes each user's best items.
2. Every source scores the union of the proposals.
3. The blend (`blending`) combines the scores of each item into one, and the best items are returned.

Each source leaves out excluded and unavailable items before it proposes, so they do not reduce the number of proposals.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.ranking.blending import Blend, blend, normalise
from recsys.ranking.candidates import RankedBatch, rank_candidates
from recsys.ranking.item_table import F32, F64, I64, ItemTable
from recsys.ranking.neighbours import Neighbours
from recsys.ranking.row_lists import RowLists
from recsys.ranking.scoring import score_rows

# Items that each source proposes for a user; a request for more items gets more proposals.
PROPOSALS = 100

# Popularity proposes fewer, because other sources propose most of its items too.
_POPULAR = 50


@dataclass(frozen=True, slots=True)
class Asked:
    """
    A batch of users to rank for, as all sources get it.

    Attributes:
        vectors: (U, D) float32, user vectors of the factors.
        history: Rows per user, distinct, newest first.
        exclude: Rows that the user may not get.
        unavailable: (N,) int64 rows that no user may get.
        depths: (U,) int64, number of items that each source proposes for each user.
    """

    vectors: F32
    history: RowLists
    exclude: RowLists
    unavailable: I64
    depths: I64

    def closed(self, items: int) -> I64:
        """Return the cells, user * items + row, of excluded and unavailable items, in rising order."""
        users = self.depths.size
        everybody = np.repeat(np.arange(users) * items, self.unavailable.size) + np.tile(self.unavailable, users)
        return np.sort(np.concatenate([self.exclude.owners() * items + self.exclude.rows, everybody]))


@dataclass(frozen=True, slots=True)
class Mixer:
    """
    All sources and their weights in the blend.

    Attributes:
        table: Factors of the catalogue.
        popularity: (I,) float32, users per item as a share, at least 0.
        popular: (I,) int64, rows by falling popularity.
        neighbours: Item-to-item sources.
        blend: Weights of the factors, of popularity and of each of *neighbours*, in this order.
    """

    table: ItemTable
    popularity: F32
    popular: I64
    neighbours: Sequence[Neighbours]
    blend: Blend

    def rank(self, asked: Asked, found: RankedBatch, *, limit: int) -> RankedBatch:
        """
        Return each user's *limit* best items of the union of all proposals.

        Row u equals, bit for bit, the answer for a batch holding only user u.

        Args:
            asked: The batch.
            found: The proposals of the factors; the largest of *asked.depths* per user.
            limit: Items wanted per user, at most the smallest of *asked.depths*.

        Cost: per user, an addition for each neighbour of the items that vote, and D multiply-adds for each candidate.
        """
        rows, counts, columns = self.candidates(asked, found)
        weights = self.blend.rows(np.diff(asked.history.ends).tolist())
        return rank_candidates(rows, blend(columns, weights, counts), counts=counts, limit=limit)

    def candidates(self, asked: Asked, found: RankedBatch) -> tuple[I64, I64, list[F64]]:
        """Return the union of all proposals: rows (N,) grouped by user, counts (U,), scores (N,) of each source."""
        users, items = asked.depths.size, len(self.popularity)
        closed = asked.closed(items)
        scored = [source.score(asked.history, closed=closed) for source in self.neighbours]
        deepest = int(asked.depths.max())
        bests = [each.best(users=users, items=items, limit=deepest) for each in scored]
        proposed = [_cells(each, asked.depths, items) for each in (found, *bests)]
        proposed.append(self._popular_cells(asked, closed))
        cells = _distinct(np.concatenate(proposed))
        owners = cells // items
        rows, counts = cells - owners * items, np.bincount(owners, minlength=users)
        return (
            rows,
            counts,
            [
                normalise(score_rows(asked.vectors, self.table, rows, counts=counts), found.scores[:, 0], counts),
                self._popularities(rows),
                *(
                    normalise(each.at(cells), best.scores[:, 0], counts)
                    for each, best in zip(scored, bests, strict=True)
                ),
            ],
        )

    def _popularities(self, rows: I64) -> F64:
        return np.asarray(self.popularity[rows] / np.float64(max(self.popularity[self.popular[0]], 1e-9)))

    def _popular_cells(self, asked: Asked, closed: I64) -> I64:
        """Return the cells of the most popular items for each user, without the *closed* cells."""
        users, items = asked.depths.size, len(self.popularity)
        cells = (np.arange(users)[:, None] * items + self.popular[:_POPULAR]).reshape(-1)
        if not closed.size:
            return cells
        nearest = closed[np.minimum(np.searchsorted(closed, cells), closed.size - 1)]
        return np.asarray(cells[nearest != cells], np.int64)


def _cells(proposed: RankedBatch, depths: I64, items: int) -> I64:
    """Return the items in each user's first *depths* places, as cells."""
    ids = proposed.ids
    kept = (np.arange(ids.shape[1]) < depths[:, None]) & (ids >= 0)
    return np.asarray((ids + np.arange(depths.size)[:, None] * items)[kept], np.int64)


def _distinct(cells: I64) -> I64:
    """Return the distinct *cells* in rising order, several times as fast as `np.unique`, which hashes."""
    ordered = np.sort(cells)
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))] if ordered.size else ordered
