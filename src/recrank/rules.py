"""
Rules that arrange a user's ranked items into the list that the user gets.

A rule acts on a pool, the user's best `POOL` items, or more if the request wants more:

1. Boosts are added to the scores, and the pool is sorted again.
2. Pinned items that the user may get come first, in the order of the rules.
3. The best remaining item is taken until the list is full. Diversity lowers the value of an item that resembles one
   in the list (its cosine, by the vectors of the items). An item is skipped while a cap on one of its values is reached.

If caps leave a list short, the caller ranks again without the values whose caps are reached (`Draft.full`), and the
list continues with that pool.

Source: Carbonell & Goldstein 1998, "The use of MMR, diversity-based reranking for reordering documents and producing
summaries".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from recrank.filters import ItemAttributes
from topk.item_table import F32, F64, I64

POOL = 100


@dataclass(frozen=True, slots=True)
class Cap:
    """
    At most *most* items of each value of an attribute.

    Attributes:
        attribute: Name of the attribute.
        most: Items of a value, at least 1.
        values: Values of each item; items without a value have no cap.
    """

    attribute: str
    most: int
    values: Mapping[int, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Rules:
    """
    The rules of a model.

    Attributes:
        pins: Rows that come first.
        boosts: (I,) float32, added to the scores; None for no boosts.
        caps: The caps.
        diversity: Weight of the resemblance, 0 to 1, for requests that set none.
    """

    pins: Sequence[int] = ()
    boosts: F32 | None = None
    caps: Sequence[Cap] = ()
    diversity: float = 0.0

    @property
    def are_off(self) -> bool:
        """Whether no rule changes a list."""
        return not (self.pins or self.boosts is not None or self.caps or self.diversity)


def make_caps(attributes: ItemAttributes, most: Mapping[str, int]) -> list[Cap]:
    """Return a cap for each attribute in *most*."""
    caps = []
    for name, number in most.items():
        values: dict[int, list[str]] = {}
        for value, rows in attributes.values(name).items():
            for row in rows.tolist():
                values.setdefault(row, []).append(value)
        caps.append(Cap(name, number, values))
    return caps


@dataclass(slots=True)
class Draft:
    """
    A user's list while rules fill it.

    Attributes:
        rules: The rules.
        limit: Items wanted.
        diversity: Weight of the resemblance, 0 to 1.
        rows: Rows taken so far, best first.
        scores: Their scores.
    """

    rules: Rules
    limit: int
    diversity: float
    rows: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    _counts: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        """Whether the list has as many items as wanted."""
        return len(self.rows) >= self.limit

    def full(self) -> dict[str, list[str]]:
        """Return the values whose caps are reached, by attribute."""
        most = {cap.attribute: cap.most for cap in self.rules.caps}
        reached: dict[str, list[str]] = {}
        for (attribute, value), count in self._counts.items():
            if count >= most[attribute]:
                reached.setdefault(attribute, []).append(value)
        return reached

    def pin(self, rows: Sequence[int], score: float) -> None:
        """Put *rows* first, with *score* each. Caps do not apply to them, but count them."""
        for row in rows[: self.limit]:
            self._take(row, score)

    def fill(self, rows: Sequence[int], scores: Sequence[float], vectors: F32) -> None:
        """
        Take items of a pool until the list is full or no item of the pool may follow.

        Args:
            rows: Rows of the pool, best first.
            scores: Their scores.
            vectors: (I, D) float32, vectors of the catalogue; read if there is diversity.

        Cost: with diversity, D multiply-adds for each item of the pool and each item taken.
        """
        pool, values = np.array(rows, np.int64), np.array(scores, np.float32)
        if self.rules.boosts is not None:
            values = values + self.rules.boosts[pool]
            order = np.lexsort((pool, -values))
            pool, values = pool[order], values[order]
        if self.diversity:
            self._fill_apart(pool, values, vectors)
            return
        for row, value in zip(pool.tolist(), values.tolist(), strict=True):
            if self.is_full:
                return
            if row not in self.rows and self._may_take(row):
                self._take(row, value)

    def _fill_apart(self, pool: I64, scores: F32, vectors: F32) -> None:
        worth = (1 - self.diversity) * _scaled(scores)
        directions = _directions(vectors[pool])
        nearest = np.full(pool.size, -np.inf)
        for row in self.rows:
            nearest = np.maximum(nearest, directions @ _directions(vectors[[row]])[0])
        is_left = ~np.isin(pool, self.rows)
        while not self.is_full and is_left.any():
            resemblance = np.where(np.isfinite(nearest), nearest, 0.0)
            best = int(np.argmax(np.where(is_left, worth - self.diversity * resemblance, -np.inf)))
            is_left[best] = False
            row = int(pool[best])
            if self._may_take(row):
                self._take(row, float(scores[best]))
                nearest = np.maximum(nearest, directions @ directions[best])

    def _may_take(self, row: int) -> bool:
        return all(
            self._counts.get((cap.attribute, value), 0) < cap.most
            for cap in self.rules.caps
            for value in cap.values.get(row, ())
        )

    def _take(self, row: int, score: float) -> None:
        self.rows.append(row)
        self.scores.append(score)
        for cap in self.rules.caps:
            for value in cap.values.get(row, ()):
                self._counts[cap.attribute, value] = self._counts.get((cap.attribute, value), 0) + 1


def _scaled(scores: F32) -> F64:
    """Map *scores* to 0 to 1; all are 0 if they are equal."""
    values = scores.astype(np.float64) - float(scores.min(initial=np.inf))
    return values / max(float(values.max(initial=0.0)), 1e-12)


def _directions(vectors: F32) -> F64:
    """Return *vectors* with length 1; a vector of zeros stays."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    return np.asarray(vectors / np.maximum(lengths, 1e-12)[:, None], np.float64)
