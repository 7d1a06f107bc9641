"""
An approximate index, an inverted file, for catalogues that are too large to score completely.

Items are grouped around centroids, and only the groups nearest to a user are scanned. The items found are scored
exactly (`score_found`), so scores, order and ties equal those of the exact kernel. Items may be missing; their share
is measured when the index is built. The exact kernel also chooses the groups, and each user's groups are scanned
separately, so each user of a batch gets the same answer as alone.
"""

import faiss
import numpy as np

from topk.candidates import RankedBatch
from topk.item_table import F32, I64, ItemTable
from topk.row_lists import RowLists
from topk.scoring import score_candidates, score_found

# Items per centroid in the training sample; FAISS needs at least 39 and uses at most 256.
_SAMPLE = 64
_MEASURED_ITEMS = 100


class ApproximateIndex:
    """
    An inverted file (FAISS IVF-Flat) over a catalogue.

    Args:
        items: The catalogue.
        probes: Groups scanned per user; more groups find more items and take longer.

    Attributes:
        groups: Number of groups, about sqrt(I).

    Cost: k-means over a sample and the assignment of every item, O(I**1.5 * D); another copy of the vectors.
    Source: Jegou, Douze & Schmid 2011, "Product quantization for nearest neighbor search", sec. IV (the inverted
    file); Johnson, Douze & Jegou 2019, "Billion-scale similarity search with GPUs" (FAISS).
    """

    def __init__(self, items: ItemTable, *, probes: int) -> None:
        rows, dims = items.vectors.shape
        self._items = items
        self.groups = max(1, round(rows**0.5))
        self._probes = min(probes, self.groups)
        self._index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dims), dims, self.groups, faiss.METRIC_INNER_PRODUCT)
        self._index.cp.seed = 0
        rng = np.random.default_rng(0)
        sample = rng.choice(rows, min(rows, _SAMPLE * self.groups), replace=False)
        self._index.train(items.vectors[np.sort(sample)])
        self._index.add(items.vectors)
        self._centroids = ItemTable.of(self._index.quantizer.reconstruct_n(0, self.groups))

    def search(
        self, users: F32, *, limit: int, exclude: RowLists | None = None, unavailable: I64 | None = None
    ) -> RankedBatch:
        """
        Return the result of `score_candidates` without the items in groups that are not scanned.

        Args:
            users: (U, D) float32, U >= 1.
            limit: Items wanted per user.
            exclude: Rows that the user may not get.
            unavailable: (N,) int64 rows that no user may get.

        Cost: O(U * D * (groups + probes * I / groups)).
        """
        places = score_candidates(users, self._centroids, limit=self._probes)
        closed = np.diff(exclude.ends) if exclude is not None else np.zeros(len(users), np.int64)
        wanted = np.minimum(limit + closed, len(self._items.vectors))
        found = self._scan(users, places, count=int(wanted.max()), unavailable=unavailable)
        # Keep the number of items that this user alone would ask for, so that no answer depends on the batch.
        found = np.where(np.arange(found.shape[1]) < wanted[:, None], found, -1)
        return score_found(users, self._items, found, limit=limit, exclude=exclude)

    def _scan(self, users: F32, places: RankedBatch, *, count: int, unavailable: I64 | None) -> I64:
        options = faiss.SearchParametersIVF()
        options.nprobe = self._probes
        # FAISS keeps no reference to these selectors; the local names keep both alive until the search ends.
        closed = faiss.IDSelectorBatch(np.empty(0, np.int64) if unavailable is None else unavailable)
        allowed = faiss.IDSelectorNot(closed)
        if unavailable is not None:
            options.sel = allowed
        vectors, groups = np.ascontiguousarray(users, np.float32), np.ascontiguousarray(places.ids)
        found, values = np.empty((len(users), count), np.int64), np.empty((len(users), count), np.float32)
        arrays = [faiss.swig_ptr(array) for array in (groups, places.scores, values, found)]
        # The Python wrapper of this method accepts no search parameters; the wrapped method does.
        self._index.search_preassigned_c(len(users), faiss.swig_ptr(vectors), count, *arrays, False, options)  # type: ignore[attr-defined]
        return found

    def measure_recall(self, users: F32) -> float:
        """Return the share of the exact best 100 items of *users* (U, D) that the index finds."""
        limit = min(_MEASURED_ITEMS, len(self._items.vectors))
        exact, found = score_candidates(users, self._items, limit=limit), self.search(users, limit=limit)
        hits = sum(np.intersect1d(*pair).size for pair in zip(exact.ids, found.ids, strict=True))
        return hits / exact.ids.size
