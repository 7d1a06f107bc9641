"""The attributes from which training learns: values in words, and numbers and times in groups of equal size."""

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from recrank.artefact import Item
from recsys.declaration.types import RANGED, Declaration
from topk.item_table import F64

# A number is learned from as its tenth of the catalogue, because two items rarely have the same number.
_GROUPS = 10


def learnable(items: Mapping[str, Item], declaration: Declaration) -> dict[str, Item]:
    """
    Return *items* with the attributes that training may use.

    Numbers and times become the groups `0` to `9`, texts are left out, and all attributes are left out if the
    declaration's training has no source `attributes`.
    """
    if "attributes" not in declaration.training.sources:
        return {item_id: msgspec.structs.replace(item, attributes={}) for item_id, item in items.items()}
    kinds = {name: each.kind for name, each in declaration.items.attributes.items()}
    special = [name for name, kind in kinds.items() if kind in (*RANGED, "text")]
    if not special:
        return dict(items)
    edges = {name: _find_edges(items, name) for name in special if kinds[name] in RANGED}
    return {item_id: _group(item, special, edges) for item_id, item in items.items()}


def _find_edges(items: Mapping[str, Item], name: str) -> F64:
    numbers = [number for item in items.values() if not math.isnan(number := item.number(name))]
    inner = np.linspace(0, 1, _GROUPS + 1)[1:-1]
    return np.quantile(numbers, inner).astype(np.float64) if numbers else np.empty(0)


def _group(item: Item, special: Sequence[str], edges: Mapping[str, F64]) -> Item:
    kept = {name: values for name, values in item.attributes.items() if name not in special}
    grouped = {
        name: (str(int(np.searchsorted(found, number, side="right"))),)
        for name, found in edges.items()
        if not math.isnan(number := item.number(name))
    }
    return msgspec.structs.replace(item, attributes=kept | grouped)
