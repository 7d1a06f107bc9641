"""
Vectors whose inner products are exact in float64 for every order of summation.

BLAS does not define the order of summation: the last bits of a row of a matrix product may depend on the batch, the
number of threads and the processor. Therefore each vector is first rounded to multiples of a power of two that is
about 2**23 times smaller than the vector's largest entry. The products of two such vectors' entries, and all partial
sums of them, are then multiples of one step. There are fewer than 2**53 steps, so float64 holds every sum without
rounding, and every kernel yields the same bits, in any order and on any machine. The rounding moves an entry by at
most 2**-23 of its vector's largest entry, about as much as float32 arithmetic does.

Sources: Ozaki, Ogita, Oishi & Rump 2012, "Error-free transformations of matrix multiplication by using fast routines
of matrix multiplication" (exact accumulation on a common grid); Demmel & Nguyen 2013, "Fast reproducible
floating-point summation" (rounding by the addition of an anchor).
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# Catalogues of at most this size keep a float64 copy and are scored in one exact product. In measurements this was
# faster than screening in float32 up to about 4000 items for a batch of 32, and up to 16,000 items for one user.
DENSE_ITEMS = 4096
# Entries up to this size cannot make a score overflow float32.
LARGEST_ENTRY = 1e16
_BLOCK_ENTRIES = 1 << 20


class ShapeMismatchError(ValueError):
    """The shapes of some arrays do not match, or some rows lie outside the catalogue."""


class NotFiniteError(ValueError):
    """A number is NaN or infinite, or large enough to make a score infinite."""


def grid_bits(dimensions: int) -> int:
    """Return the bits per entry with which a sum of *dimensions* products fits into the 53 bits of float64."""
    return min(23, (53 - math.ceil(math.log2(dimensions))) // 2)


def round_to_grid(vectors: F32, bits: int) -> F64:
    """
    Round each row to multiples of 2**-bits of the power of two above its largest entry.

    Args:
        vectors: (N, D) float32, N >= 1.
        bits: At most 23; see `grid_bits`.

    Returns:
        (N, D) float64; float32 holds the same values. Rounding them again changes nothing.

    Raises:
        NotFiniteError: an entry is NaN, infinite or larger than `LARGEST_ENTRY`.

    Cost: five passes over N*D; N*D*16 bytes of scratch.
    """
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    if not largest.max() <= LARGEST_ENTRY:
        raise NotFiniteError(f"a vector holds NaN, infinity or an entry above {LARGEST_ENTRY:g}")
    # Adding 1.5 * 2**(52 + s) to a much smaller x, then subtracting it, rounds x to a multiple of 2**s.
    anchor = np.ldexp(np.float64(1.5), np.frexp(largest)[1] + (52 - bits))
    rounded: F64 = (vectors + anchor) - anchor
    return rounded


def lengths(vectors: F64) -> F64:
    """Return the Euclidean length (N,) of each row of *vectors* (N, D)."""
    squares: F64 = np.einsum("nd,nd->n", vectors, vectors)
    return np.sqrt(squares)


@dataclass(frozen=True, slots=True)
class ItemTable:
    """
    A catalogue prepared for scoring; read-only, shared by all requests.

    Attributes:
        vectors: (N, D) float32 on the grid, C-contiguous.
        exact: (D, I) float64, the same values, for a small catalogue; else None.
        longest: Largest Euclidean length of a row, or more.
        rows: (I,) int64, the rows of *vectors* that form the catalogue; None for all.
    """

    vectors: F32
    exact: F64 | None
    longest: float
    rows: I64 | None = None

    def __len__(self) -> int:
        """Return I, the number of items."""
        return len(self.vectors if self.rows is None else self.rows)

    def block(self, start: int, stop: int) -> F32:
        """Return the vectors of items *start* to *stop*, exclusive; a copy of a block if the table has *rows*."""
        if self.rows is None:
            return self.vectors[start:stop]
        return self.vectors.take(self.rows[start:stop], axis=0)

    def take(self, items: I64) -> F32:
        """Return the vectors of *items*, of any shape (...), as (..., D)."""
        return self.vectors.take(items if self.rows is None else self.rows[items], axis=0)

    def pick(self, rows: I64) -> "ItemTable":
        """
        Return the table of some *rows* of this complete table, which rise; item i of the result is rows[i].

        Cost: a copy of the vectors of at most `DENSE_ITEMS` rows. The vectors of more rows are read block by block.
        """
        exact = None
        if rows.size <= DENSE_ITEMS:
            exact = np.ascontiguousarray(self.vectors.take(rows, axis=0).T.astype(np.float64))
        return ItemTable(vectors=self.vectors, exact=exact, longest=self.longest, rows=rows)

    @classmethod
    def of(cls, items: F32, *, dense_items: int = DENSE_ITEMS) -> Self:
        """
        Round *items* to the grid and compute the longest length.

        Args:
            items: (I, D) float32, 1 <= I < 2**32, 1 <= D <= 4096; left unchanged.
            dense_items: Keep a float64 copy up to this many items.

        Raises:
            ShapeMismatchError: *items* is not two-dimensional, or is empty.
            NotFiniteError: an entry is NaN, infinite or larger than `LARGEST_ENTRY`.

        Cost: O(I*D) once; a copy of *items*, for a small catalogue another of twice the size, and 40 MB of scratch.
        """
        if items.ndim != 2 or items.size == 0:
            raise ShapeMismatchError(f"items must be (I, D) and not empty, got {items.shape}")
        bits = grid_bits(items.shape[1])
        vectors = np.empty(items.shape, np.float32)
        longest = 0.0
        step = max(1, _BLOCK_ENTRIES // items.shape[1])
        for start in range(0, len(items), step):
            block = round_to_grid(items[start : start + step], bits)
            vectors[start : start + step] = block
            longest = max(longest, float(lengths(block).max()))
        exact = np.ascontiguousarray(vectors.T.astype(np.float64)) if len(items) <= dense_items else None
        return cls(vectors=vectors, exact=exact, longest=longest)
