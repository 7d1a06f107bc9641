"""
Fewer items looked at: an inverted file over the catalogue, for catalogues too large to score whole.

Items are grouped around centroids and only the groups nearest to a user are scanned. What is found is scored exactly
(`score_found`), so scores, order and ties are the exact kernel's; only items may be missing, and how many is measured
when the index is built. The groups are chosen by the exact kernel too and scanned user by user, so a batch still
answers what its users alone would get.
"""

import faiss
import numpy as np

from recsys.ranking.candidates import RankedBatch
from recsys.ranking.item_table import F32, I64, ItemTable
from recsys.ranking.row_lists import RowLists
from recsys.ranking.scoring import score_candidates, score_found

# Items a centroid is trained on; FAISS asks for 39 at least and takes 256 at most.
_SAMPLE = 64
_MEASURED_ITEMS = 100


class ApproximateIndex:
    """
    An inverted file (FAISS IVF-Flat) over a catalogue.

    Args:
        items: The catalogue.
        probes: Groups scanned per user: the higher, the more is found, the longer it takes.

    Attributes:
        groups: How many there are; about sqrt(I).

    Cost: k-means over a sample and a place for every item, O(I**1.5 * D); another copy of the vectors.
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
        Return what `score_candidates` would, less what lies in groups not scanned.

        Args:
            users: (U, D) float32, U >= 1.
            limit: Items wanted per user.
            exclude: Rows never returned to that user.
            unavailable: (N,) int64 rows returned to nobody.

        Cost: O(U * D * (groups + probes * I / groups)).
        """
        places = score_candidates(users, self._centroids, limit=self._probes)
        closed = np.diff(exclude.ends) if exclude is not None else np.zeros(len(users), np.int64)
        wanted = np.minimum(limit + closed, len(self._items.vectors))
        found = self._scan(users, places, count=int(wanted.max()), unavailable=unavailable)
        # As many as this user alone would have asked for: nobody's answer depends on the batch.
        found = np.where(np.arange(found.shape[1]) < wanted[:, None], found, -1)
        return score_found(users, self._items, found, limit=limit, exclude=exclude)

    def _scan(self, users: F32, places: RankedBatch, *, count: int, unavailable: I64 | None) -> I64:
        options = faiss.SearchParametersIVF()
        options.nprobe = self._probes
        # FAISS holds no reference to what a selector is made of: both names keep it alive until the search is over.
        closed = faiss.IDSelectorBatch(np.empty(0, np.int64) if unavailable is None else unavailable)
        allowed = faiss.IDSelectorNot(closed)
        if unavailable is not None:
            options.sel = allowed
        vectors, groups = np.ascontiguousarray(users, np.float32), np.ascontiguousarray(places.ids)
        found, values = np.empty((len(users), count), np.int64), np.empty((len(users), count), np.float32)
        arrays = [faiss.swig_ptr(array) for array in (groups, places.scores, values, found)]
        # The wrapper of this method takes no parameters; the method itself does.
        self._index.search_preassigned_c(len(users), faiss.swig_ptr(vectors), count, *arrays, False, options)  # type: ignore[attr-defined]
        return found

    def measure_recall(self, users: F32) -> float:
        """Return which share of the exact best 100 of *users* (U, D) is found."""
        limit = min(_MEASURED_ITEMS, len(self._items.vectors))
        exact, found = score_candidates(users, self._items, limit=limit), self.search(users, limit=limit)
        hits = sum(np.intersect1d(*pair).size for pair in zip(exact.ids, found.ids, strict=True))
        return hits / exact.ids.size
