"""
Apply changes of the catalogue to an artefact between trainings.

Known items get their new titles and attributes; their vectors stay until the next training. A new item gets the vector
that the model predicts from its attributes:

    vector = sum of attribute_vectors[value] over the values of the item that the model knows + attribute_vectors[last]

New items get no votes of the neighbour sources until the next training. The result depends only on the artefact and the
entries, so all instances rank with the same bits.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from recrank.artefact import Artefact, ArtefactError, Item
from recrank.features import POPULARITY
from recstore.catalogue.entries import REMOVED, Entry
from topk.item_table import F32

ATTRIBUTE_VECTORS: Final = "attribute_vectors"
ATTRIBUTE_VALUES: Final = "attribute_values"
"""The array of the map, and the fact of the manifest that names its rows except the last."""

# The map works with at most this number of attribute values, the most frequent ones.
_MOST_VALUES = 2000


def change(artefact: Artefact, entries: Mapping[str, Entry]) -> tuple[Artefact, list[str]]:
    """
    Return *artefact* with the changes of *entries*, and the new items without a known attribute value.

    Those items cannot be ranked before the next training. Removed and unavailable items keep their rows.

    Raises:
        ArtefactError: the array of the map does not fit the items.

    Cost: a copy of the arrays of items, if there are new items.
    """
    items = [_described(item, entries.get(item.item_id)) for item in artefact.items]
    known = {item.item_id for item in items}
    new = [item for entry in entries.values() if entry.item_id not in known and (item := entry.item())]
    new.sort(key=lambda item: (len(item.item_id), item.item_id))
    columns = _columns(artefact)
    placed = [item for item in new if any(value in columns for value in item.values())]
    unplaced = sorted({item.item_id for item in new} - {item.item_id for item in placed})
    arrays = _with_rows(artefact.arrays, _vectors(artefact, placed, columns)) if placed else artefact.arrays
    return replace(artefact, arrays=arrays, items=[*items, *placed]), unplaced


def known_values(artefact: Artefact) -> list[tuple[str, str]]:
    """Return the attribute values by which the map of *artefact* places new items; none without a map."""
    return [(name, value) for name, value in artefact.manifest.training.get(ATTRIBUTE_VALUES, ())]


def shared_values(known: Sequence[Item]) -> list[tuple[str, str]]:
    """Return the attribute values that at least two of the *known* items have: the most frequent ones, in order."""
    counts = Counter(value for item in known for value in item.values())
    shared = sorted((-count, value) for value, count in counts.items() if count > 1)
    return sorted(value for _, value in shared[:_MOST_VALUES])


def _described(item: Item, entry: Entry | None) -> Item:
    if entry is None or entry.description in {"", REMOVED}:
        return item
    return entry.item() or item


def _columns(artefact: Artefact) -> dict[tuple[str, str], int]:
    """Return the row of each attribute value in the map; empty without a map."""
    learned = artefact.arrays.get(ATTRIBUTE_VECTORS)
    if learned is None:
        return {}
    values = known_values(artefact)
    if learned.shape != (len(values) + 1, artefact.arrays["item_factors"].shape[1]):
        raise ArtefactError(
            f"{ATTRIBUTE_VECTORS} has the shape {learned.shape} for {len(values)} values; train it again"
        )
    return {value: row for row, value in enumerate(values)}


def _vectors(artefact: Artefact, items: Sequence[Item], columns: Mapping[tuple[str, str], int]) -> F32:
    learned = artefact.arrays[ATTRIBUTE_VECTORS].astype(np.float64)
    rows = [[*sorted(columns[value] for value in item.values() if value in columns), len(columns)] for item in items]
    return np.stack([learned[row].sum(axis=0) for row in rows]).astype(np.float32)


def _with_rows(arrays: Mapping[str, NDArray[Any]], vectors: F32) -> dict[str, NDArray[Any]]:
    """Return *arrays* with a row for each of the *vectors* of items that have no interactions and no votes."""
    added = len(vectors)
    extended = {
        **arrays,
        "item_factors": np.concatenate([arrays["item_factors"], vectors]),
        **{
            name: np.concatenate([arrays[name], np.zeros(added, np.float32)])
            for name in arrays
            if name in {"item_popularity", "item_recent_popularity"} or name.startswith(POPULARITY)
        },
    }
    for source in range(len(arrays.get("neighbours_half_lives", ()))):
        ends = arrays[f"neighbours_{source}_ends"]
        extended[f"neighbours_{source}_ends"] = np.concatenate([ends, np.full(added, ends[-1])])
    return extended
