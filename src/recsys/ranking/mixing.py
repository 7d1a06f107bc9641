"""
Several sources propose candidates; the blend of their scores ranks them.

1. Every source proposes each user's best items: factors, popularity, neighbours.
2. Every source scores the union of the proposals.
3. The blend (`blending`) makes one score of them, and the best remain.

Excluded and unavailable items leave each source's list before anything is chosen, so they cost no places.
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

# Items that each source proposes for a user; more where more are asked for.
PROPOSALS = 100

# Popularity proposes fewer: its items are mostly among the others'.
_POPULAR = 50


@dataclass(frozen=True, slots=True)
class Asked:
    """
    A batch on its way through the sources.

    Attributes:
        vectors: (U, D) float32, users in the space of the factors.
        history: Rows per user, distinct, newest first.
        exclude: Rows never returned to that user.
        unavailable: (N,) int64 rows that no user may get.
        depths: (U,) int64, items each source proposes to each user.
    """

    vectors: F32
    history: RowLists
    exclude: RowLists
    unavailable: I64
    depths: I64

    def closed(self, items: int) -> I64:
        """Return the cells, user * items + row, that may not be returned, rising."""
        users = self.depths.size
        everybody = np.repeat(np.arange(users) * items, self.unavailable.size) + np.tile(self.unavailable, users)
        return np.sort(np.concatenate([self.exclude.owners() * items + self.exclude.rows, everybody]))


@dataclass(frozen=True, slots=True)
class Mixer:
    """
    Sources beside the factors, and the weights of all.

    Attributes:
        table: The catalogue's factors.
        popularity: (I,) float32, users per item as a share; never below 0.
        popular: (I,) int64, rows by falling popularity.
        neighbours: Item-to-item sources.
        blend: One weight per source: the factors', popularity's, each of *neighbours*.
    """

    table: ItemTable
    popularity: F32
    popular: I64
    neighbours: Sequence[Neighbours]
    blend: Blend

    def rank(self, asked: Asked, found: RankedBatch, *, limit: int) -> RankedBatch:
        """
        Return each user's *limit* best of the union of all proposals.

        Row u equals, bit for bit, the answer for a batch holding only user u.

        Args:
            asked: The batch.
            found: The proposals of the factors, as many per user as the largest of *asked.depths*.
            limit: At most the smallest of *asked.depths*.

        Cost: per user the neighbours of the items that vote, and D multiply-adds for each candidate.
        """
        rows, counts, columns = self.candidates(asked, found)
        weights = self.blend.rows(np.diff(asked.history.ends).tolist())
        return rank_candidates(rows, blend(columns, weights, counts), counts=counts, limit=limit)

    def candidates(self, asked: Asked, found: RankedBatch) -> tuple[I64, I64, list[F64]]:
        """Return the union of all proposals: rows (N,) grouped by user, counts (U,), each source's scores (N,)."""
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
        """Return the most popular items as cells, each user's closed ones left out."""
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
    """Return *cells* rising, each once; several times as fast as `np.unique`, which hashes."""
    ordered = np.sort(cells)
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))] if ordered.size else ordered
