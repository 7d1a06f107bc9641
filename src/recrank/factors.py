"""The source of scores by factors: score[u, i] = x_u . y_i."""

from concurrent.futures import Executor
from typing import TYPE_CHECKING

import numpy as np

from recrank.artefact import ArtefactError
from recrank.filters import Subset
from recrank.request_rows import Asked
from topk.candidates import RankedBatch
from topk.item_table import F32, ItemTable
from topk.row_lists import RowLists
from topk.scoring import penalty_pays, picks_pay, score_candidates, score_rows_of

if TYPE_CHECKING:
    from topk.approximate import ApproximateIndex


class FactorSource:
    """
    Scores items by their vectors.

    Args:
        table: The vectors of the items.
        workers: Threads that share a large catalogue.
        pool: Runs the workers.
        probes: Number of groups of the catalogue to scan per user; 0 scans the whole catalogue.

    Attributes:
        table: The vectors of the items.
        index: Finds the best items in some of the groups; None if the whole catalogue is scanned.

    Raises:
        ArtefactError: *probes* is given, and FAISS is not installed.
    """

    def __init__(self, table: ItemTable, *, workers: int = 1, pool: Executor | None = None, probes: int = 0) -> None:
        self.table = table
        self.index = _build_index(table, probes=probes) if probes else None
        self._workers, self._pool = workers, pool

    @property
    def scores_all(self) -> bool:
        """Whether the catalogue is small, so that every source scores all of its items."""
        return self.table.exact is not None and self.index is None

    def best(self, asked: Asked, *, limit: int) -> RankedBatch:
        """Return the best items of each user. Users with the same subset are scored together."""
        groups = asked.groups()
        if len(groups) == 1:
            return self._best_of(groups[0][0], asked.vectors, asked.exclude, limit=limit)
        users = np.concatenate([users for _, users in groups])
        parts = [
            self._best_of(subset, asked.vectors[users], asked.exclude.of_users(users), limit=limit)
            for subset, users in groups
        ]
        order = np.argsort(users)
        ids, scores, counts = (
            np.concatenate([getattr(part, name) for part in parts])[order] for name in ("ids", "scores", "counts")
        )
        return RankedBatch(ids, scores, counts)

    def _best_of(self, subset: Subset | None, vectors: F32, exclude: RowLists, *, limit: int) -> RankedBatch:
        items, users = len(self.table.vectors), len(vectors)
        if subset is not None and self.table.exact is None and picks_pay(subset.size, items=items, users=users):
            return score_rows_of(
                vectors,
                self.table,
                subset.rows,
                limit=limit,
                exclude=exclude,
                workers=self._workers,
                pool=self._pool,
            )
        closed = penalty = None
        if subset is not None and self.index is None and penalty_pays(subset.size, items=items, users=users):
            penalty = subset.penalty
        elif subset is not None:
            closed = subset.closed
        if self.index is not None:
            return self.index.search(vectors, limit=limit, exclude=exclude, unavailable=closed)
        return score_candidates(
            vectors,
            self.table,
            limit=limit,
            exclude=exclude,
            unavailable=closed,
            penalty=penalty,
            workers=self._workers,
            pool=self._pool,
        )


def _build_index(table: ItemTable, *, probes: int) -> "ApproximateIndex":
    try:
        # Only instances with an approximate index need this library.
        from topk.approximate import ApproximateIndex  # noqa: PLC0415
    except ImportError as error:
        raise ArtefactError(
            "an approximate index needs FAISS: install the extra rank-items-approximate, or set INDEX=exact"
        ) from error
    return ApproximateIndex(table, probes=probes)
