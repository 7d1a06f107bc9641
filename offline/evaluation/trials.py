"""The trials of a choice: a setting, and the quality that it reached on an inner hold-out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from scipy.sparse import csr_array

from offline.evaluation.quality import score_lists
from recrank.artefact import Artefact, Item, Manifest
from topk.item_table import I64


class Measures:
    """The measures of a trial. The class is plain, so each kind of trial orders its own fields."""

    ndcg_10: float
    recall_20: float

    def relative_to(self, reference: "Measures") -> float:
        """Return the mean of both measures, each as a multiple of *reference*'s."""
        pairs = ((self.ndcg_10, reference.ndcg_10), (self.recall_20, reference.recall_20))
        return sum(value / base if base else 1.0 + value for value, base in pairs) / 2


@dataclass(frozen=True)
class Trial(Measures):
    """A tried setting, and its NDCG@10 and Recall@20 on the inner hold-out."""

    what: str
    ndcg_10: float
    recall_20: float

    @classmethod
    def judge(cls, what: str, lists: I64, held: csr_array) -> "Trial":
        """Return the trial of *lists* (N, DEPTH) for the held-out items *held* (N, W)."""
        ndcg, recall = score_lists(lists, held)
        return cls(what, float(ndcg.mean()), float(recall.mean()))


def unwritten(arrays: Mapping[str, NDArray[Any]], item_ids: Sequence[str]) -> Artefact:
    """Return an artefact of *arrays* for a trial, which is never written."""
    return Artefact(Manifest("inner", "0", 0, {}, {}, {}, {}), dict(arrays), [Item(item_id) for item_id in item_ids])
