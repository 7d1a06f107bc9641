"""
Give new and rare items a vector and votes that their attributes predict.

A ridge regression maps the attributes of the items with interactions to their vectors, and to the votes that they get
and give. The map also covers items that share attributes with these items but have no interactions:

    prediction = T_all (T'T + ridge I)^-1 T' values

T has a row per item and a column per attribute value, and a column of ones. An item with n users adds the prediction
to its own vector with the weight strength / (strength + n). An item without interactions (a new item) takes the
prediction times *trust*, so that training can decide how new items compete with known ones (`offline/trust.py`).

The regression learns which values go together, not whether two items have the same ones. So a known item also votes for
new items like it: `_ALIKE` times its strongest predicted vote, times the cosine of the attribute values of both items.
Values count by the logarithm of their rarity.

Source: Gantner et al. 2010, "Learning attribute-to-feature mappings for cold-start recommendations".
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, diags_array
from threadpoolctl import threadpool_limits

from recrank.artefact import Item
from recrank.changes import shared_values
from recrank.neighbours import KNOWN
from topk.item_table import F32, F64, I64

Arrays = dict[str, NDArray[Any]]

_RIDGE = 20.0
_ALIKE = 0.3
# Votes that an item gives to new items, and votes that a new item gives.
_MOST_TO_NEW, _MOST_FROM_NEW = 50, 100
# Cells of a block of predicted votes, 32 MB.
_BLOCK_CELLS = 4_000_000
# Above this number of pairs of a known and a new item, new items get vectors only.
_MOST_CELLS = 400_000_000


@dataclass(frozen=True)
class AttributeSettings:
    """
    How much the attributes of an item count.

    Attributes:
        strength: Number of users at which an item's own vector and the predicted one count the same; with 0, only
            items without interactions use the prediction.
        trust: Factor of the vectors and votes that new items get.
    """

    strength: float = 0.0
    trust: float = 2.0


@dataclass(frozen=True)
class AttributeMap:
    """
    The regression from attributes.

    Attributes:
        tokens: (I + N, F) sparse, 1 where the item has the attribute value; new items follow the known ones.
        known: I, number of items with interactions.
        inverse: (F, F), inverse of the regularised Gram matrix of the first I rows.
    """

    tokens: csr_array
    known: int
    inverse: F64

    @classmethod
    def of(cls, known: Sequence[Item], new: Sequence[Item]) -> "AttributeMap | None":
        """Learn from the *known* items; return None if they have no attributes in common."""
        values = shared_values(known)
        if not values:
            return None
        columns = {value: column for column, value in enumerate(values)}
        tokens = _tokens([*known, *new], columns)
        learned = tokens[: len(known)]
        gram = (learned.T @ learned).toarray() + _RIDGE * np.eye(tokens.shape[1])
        return cls(tokens, len(known), np.linalg.inv(gram))

    def weigh(self, values: NDArray[Any]) -> F64:
        """Return what each attribute value adds to a prediction, (F, K), from *values* (I, K) of the known items."""
        return np.asarray(self.inverse @ (self.tokens[: self.known].T @ values), np.float64)

    def predict(self, values: NDArray[Any]) -> F64:
        """Return predictions (I + N, K) from *values* (I, K) of the known items."""
        return np.asarray(self.tokens @ self.weigh(values), np.float64)

    def directions(self) -> csr_array:
        """Return unit vectors (I + N, F - 1) of the attribute values of each item, by their rarity; 0 without values."""
        values = self.tokens[:, :-1]
        rarity = np.log(self.known / values[: self.known].sum(axis=0))
        lengths = np.sqrt(values @ rarity**2)
        return csr_array(diags_array(1 / np.maximum(lengths, 1e-9)) @ values @ diags_array(rarity))


def find_new(items: Iterable[Item], known: Sequence[Item]) -> list[Item]:
    """Return those of *items* that are not *known* and share an attribute value with known items; shorter ids first."""
    taken = {item.item_id for item in known}
    shared = set(shared_values(known))
    new = [item for item in items if item.item_id not in taken and not shared.isdisjoint(item.values())]
    return sorted(new, key=lambda item: (len(item.item_id), item.item_id))


def describe(arrays: Mapping[str, NDArray[Any]], counts: I64, learned: AttributeMap, *, strength: float) -> Arrays:
    """
    Return *arrays* of the known items with the predictions of *learned* added, and with rows for the new items.

    Args:
        arrays: The artefact's arrays for the known items.
        counts: (I,) users per known item.
        learned: The regression.
        strength: See `AttributeSettings`.

    Cost: I F D multiply-adds for vectors; for each neighbour source, N for each attribute value of each neighbour.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        own: F32 = arrays["item_factors"]
        predicted = learned.predict(own)
        share = strength / np.maximum(strength + counts, 1e-9)
        vectors = [own + share[:, None] * predicted[: learned.known], predicted[learned.known :]]
        described = {
            **arrays,
            "item_factors": np.concatenate(vectors).astype(np.float32),
            **{
                name: np.concatenate([arrays[name], np.zeros(len(predicted) - learned.known, np.float32)])
                for name in ("item_popularity", "item_recent_popularity")
                if name in arrays
            },
        }
        if len(predicted) > learned.known:
            described[KNOWN] = np.array([learned.known], np.int64)
        for source in range(len(arrays.get("neighbours_half_lives", ()))):
            described |= _describe_votes(described, f"neighbours_{source}_", learned)
    return described


def trust_new(arrays: Mapping[str, NDArray[Any]], known: int, trust: float) -> Arrays:
    """Return *arrays* with the vectors of all items after the first *known* and the votes for them times *trust*."""
    trusted = {**arrays, "item_factors": arrays["item_factors"].copy()}
    trusted["item_factors"][known:] *= np.float32(trust)
    for source in range(len(arrays.get("neighbours_half_lives", ()))):
        weights, items = arrays[f"neighbours_{source}_weights"], arrays[f"neighbours_{source}_items"]
        trusted[f"neighbours_{source}_weights"] = np.where(items < known, weights, weights * np.float32(trust))
    return trusted


def _describe_votes(arrays: Arrays, prefix: str, learned: AttributeMap) -> Arrays:
    """Return the arrays of a neighbour source with the votes that new items get and give."""
    known, everything = learned.known, learned.tokens.shape[0]
    votes = csr_array((arrays[f"{prefix}weights"], arrays[f"{prefix}items"], arrays[f"{prefix}ends"]), (known, known))
    parts = [votes.tocoo()]
    if everything > known and known * (everything - known) <= _MOST_CELLS:
        parts += _predict_votes(votes, learned)
    sources = np.concatenate([part.row + down for part, down in zip(parts, (0, 0, known), strict=False)])
    targets = np.concatenate([part.col + right for part, right in zip(parts, (0, known, 0), strict=False)])
    weights = np.concatenate([part.data for part in parts])
    order = np.lexsort((targets, sources))
    return {
        f"{prefix}ends": np.concatenate(([0], np.cumsum(np.bincount(sources, minlength=everything)))),
        f"{prefix}items": targets[order].astype(np.int32),
        f"{prefix}weights": weights[order].astype(np.float32),
    }


def _predict_votes(own: csr_array, learned: AttributeMap) -> tuple[coo_array, coo_array]:
    """Return the votes (I, N) that known items give to new ones, and the votes (N, I) that new items give."""
    known = learned.known
    tokens, spread = learned.tokens[:known], learned.inverse @ learned.tokens[known:].T.toarray()
    by_value = csr_array(own.T @ tokens)
    directions = learned.directions()

    def predict(rows: slice) -> F64:
        votes = np.asarray((own[rows] @ tokens) @ spread, np.float64)
        alike = (directions[:known][rows] @ directions[known:].T).toarray()
        return np.asarray(votes + _ALIKE * np.maximum(votes.max(axis=1, keepdims=True), 0.0) * alike, np.float64)

    got = _strongest_by_row(predict, (known, spread.shape[1]), most=_MOST_TO_NEW)
    given = _strongest_by_row(
        lambda rows: (by_value @ spread[:, rows]).T, (spread.shape[1], known), most=_MOST_FROM_NEW
    )
    return got, given


def _strongest_by_row(compute: Callable[[slice], F64], shape: tuple[int, int], *, most: int) -> coo_array:
    """Return the *most* largest entries above 0 of each row of a matrix that *compute* returns in blocks of rows."""
    rows, columns = shape
    step = max(1, _BLOCK_CELLS // max(columns, 1))
    parts: list[tuple[I64, I64, F32]] = []
    for start in range(0, rows, step):
        block = compute(slice(start, start + step)).astype(np.float32)
        best = np.argpartition(-block, min(most, columns) - 1, axis=1)[:, :most]
        values = np.take_along_axis(block, best, axis=1)
        row, place = (values > 0).nonzero()
        parts.append((row + start, best[row, place], values[row, place]))
    row, column, value = (np.concatenate(each) for each in zip(*parts, strict=True))
    return coo_array((value, (row, column)), shape=shape)


def _tokens(items: Sequence[Item], columns: Mapping[tuple[str, str], int]) -> csr_array:
    """Return the matrix of attribute values, with a last column of ones."""
    rows = [[*sorted(columns[value] for value in item.values() if value in columns), len(columns)] for item in items]
    ends = np.concatenate(([0], np.cumsum([len(row) for row in rows], dtype=np.int64)))
    indices = np.array([column for row in rows for column in row], np.int64)
    return csr_array((np.ones(indices.size), indices, ends), shape=(len(items), len(columns) + 1))
