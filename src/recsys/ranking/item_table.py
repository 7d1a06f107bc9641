"""
Vectors whose inner products are exact in float64, whatever the order of summation.

BLAS promises no order of summation: a row of a matrix product may differ in its last bits with the batch it
stands in, the number of threads, the processor. Here every vector is first rounded to a grid of its own,
multiples of a power of two about 2**23 times smaller than its largest entry. Products of two such entries, and
every partial sum of them, are then whole multiples of one step, fewer than 2**53 of them: float64 holds all of
them without rounding. So any kernel, in any order, on any machine, yields the same bits. The rounding moves an
entry by at most 2**-23 of its vector's largest, about as much as float32 arithmetic itself would.

Source: exact accumulation on a common grid, Ozaki, Ogita, Oishi & Rump 2012, "Error-free transformations of
matrix multiplication by using fast routines of matrix multiplication"; the anchor that rounds by one addition,
Demmel & Nguyen 2013, "Fast reproducible floating-point summation".
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# Up to here a float64 copy is kept and every item is scored exactly at once: measured, that is faster than
# screening in float32 up to about 4000 items for a batch of 32 and 16,000 for one user.
DENSE_ITEMS = 4096
# Entries up to here; so no score overflows float32.
LARGEST_ENTRY = 1e16
_BLOCK_ENTRIES = 1 << 20


class ShapeMismatchError(ValueError):
    """Arrays that must agree in shape, or rows that must lie in the catalogue, do not."""


class NotFiniteError(ValueError):
    """A number is NaN or infinite, or so large that a score could be."""


def grid_bits(dimensions: int) -> int:
    """Bits per entry with which a sum of *dimensions* products stays within the 53 of float64."""
    return min(23, (53 - math.ceil(math.log2(dimensions))) // 2)


def round_to_grid(vectors: F32, bits: int) -> F64:
    """
    Round each row to multiples of 2**-bits of the power of two above its largest entry.

    Args:
        vectors: (N, D) float32, N >= 1.
        bits: At most 23; see `grid_bits`.

    Returns:
        (N, D) float64, of values that float32 holds too. Rounding them again changes nothing.

    Raises:
        NotFiniteError: an entry is NaN, infinite or larger than `LARGEST_ENTRY`.

    Cost: five passes over N*D; N*D*16 bytes of scratch.
    """
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    if not largest.max() <= LARGEST_ENTRY:
        raise NotFiniteError(f"a vector holds NaN, infinity or an entry beyond {LARGEST_ENTRY:g}")
    # Adding 1.5 * 2**(52 + s) to a much smaller x, and taking it away again, leaves x rounded to multiples of 2**s.
    anchor = np.ldexp(np.float64(1.5), np.frexp(largest)[1] + (52 - bits))
    rounded: F64 = (vectors + anchor) - anchor
    return rounded


def lengths(vectors: F64) -> F64:
    """Euclidean length of each row of (N, D); (N,)."""
    squares: F64 = np.einsum("nd,nd->n", vectors, vectors)
    return np.sqrt(squares)


@dataclass(frozen=True, slots=True)
class ItemTable:
    """
    A catalogue made ready for scoring; read-only, shared by all requests.

    Attributes:
        vectors: (I, D) float32 on the grid, C-contiguous.
        exact: (D, I) float64, the same values, where the catalogue is small; else None.
        longest: Largest Euclidean length of a row.
    """

    vectors: F32
    exact: F64 | None
    longest: float

    @classmethod
    def of(cls, items: F32, *, dense_items: int = DENSE_ITEMS) -> Self:
        """
        Round *items* to the grid and measure them.

        Args:
            items: (I, D) float32, 1 <= I < 2**32, 1 <= D <= 4096; left unchanged.
            dense_items: Keep a float64 copy up to this many items.

        Raises:
            ShapeMismatchError: not two-dimensional, or empty.
            NotFiniteError: an entry is NaN, infinite or larger than `LARGEST_ENTRY`.

        Cost: O(I*D) once; a copy of *items* (and one twice as large where small), 40 MB of scratch.
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
