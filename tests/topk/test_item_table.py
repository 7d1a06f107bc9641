import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topk.item_table import ItemTable, NotFiniteError, ShapeMismatchError, grid_bits, round_to_grid


def vectors(seed, rows, dims, *, spread=0):
    rng = np.random.default_rng(seed)
    scale = 2.0 ** rng.integers(-spread, spread + 1, (rows, dims))
    return (rng.standard_normal((rows, dims)) * scale).astype(np.float32)


@given(st.integers(0, 2**32), st.integers(1, 300), st.integers(0, 12))
def test_sums_do_not_depend_on_the_order(seed, dims, spread):
    """Any order of summation and exact rational arithmetic give the same float64."""
    bits = grid_bits(dims)
    wide, other = (round_to_grid(vectors(seed + i, 1, dims, spread=spread), bits)[0] for i in range(2))
    exact = sum((Fraction(float(x)) * Fraction(float(y)) for x, y in zip(wide, other, strict=True)), Fraction())
    order = np.random.default_rng(seed).permutation(dims)
    assert wide @ other == exact
    assert sum((wide * other)[order].tolist()) == exact
    assert np.einsum("d,d", wide[::-1], other[::-1]) == exact


@given(st.integers(0, 2**32), st.integers(1, 4096), st.integers(0, 40))
def test_rounding_is_small_and_idempotent(seed, dims, spread):
    """An entry moves by at most 2**-bits of the largest entry of its row, and a second rounding moves nothing."""
    bits = grid_bits(dims)
    before = vectors(seed, 2, dims, spread=spread)
    after = round_to_grid(before, bits)
    assert np.array_equal(after.astype(np.float32), after)
    assert (np.abs(after - before).max(axis=1) <= np.abs(before).max(axis=1) * 2.0**-bits).all()
    assert np.array_equal(round_to_grid(after.astype(np.float32), bits), after)


def test_the_largest_sum_fits_into_float64():
    """The largest entries that a grid allows add up to at most 2**53 steps."""
    for dims in (*range(1, 600), 1024, 4096):
        assert dims * 2 ** (2 * grid_bits(dims)) <= 2**53


def test_rows_are_rounded_independently():
    """The rounding of a row does not depend on the other rows."""
    rows = vectors(1, 50, 64, spread=8)
    together = round_to_grid(rows, 23)
    assert all(np.array_equal(round_to_grid(rows[i : i + 1], 23)[0], together[i]) for i in range(50))


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, 2.0**-126, 1.0, 1e15])
def test_extreme_magnitudes_stay_finite(value):
    """Zeros, subnormals and large numbers are rounded to finite neighbours."""
    rounded = round_to_grid(np.full((1, 64), value, np.float32), 23)
    assert rounded[0, 0] == pytest.approx(value, rel=2**-22, abs=1e-45)


def test_a_table_copies_its_input_and_records_its_longest_row():
    """Building a table does not change its input; the longest row bounds every score."""
    items = vectors(3, 5000, 7)
    items.setflags(write=False)
    table = ItemTable.of(items)
    assert table.exact is None
    assert table.longest == pytest.approx(math.sqrt((items.astype(float) ** 2).sum(axis=1).max()))
    small = ItemTable.of(items[:10])
    assert small.exact is not None
    assert np.array_equal(small.exact.T, small.vectors)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e19])
def test_a_table_refuses_numbers_it_cannot_score(bad):
    """NaN, infinity and rows whose products overflow are refused when the table is built."""
    items = vectors(3, 100, 4)
    items[57, 2] = bad
    with pytest.raises(NotFiniteError):
        ItemTable.of(items)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (4,)])
def test_a_table_refuses_empty_shapes(shape):
    """A table needs at least one item and one dimension."""
    with pytest.raises(ShapeMismatchError):
        ItemTable.of(np.zeros(shape, np.float32))
