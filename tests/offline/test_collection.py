from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline.collection import collect_records, measure_sessions, quantise
from offline.interactions import Interactions
from offline.reading.lines import DataError, Row
from recsys.declaration.types import WEIGHT_STEPS
from recsys.records import HistoryItem, UserRecord

MINUTE_US = 60 * 1_000_000


def test_rows_are_collected_into_records():
    """
    Repeated rows add up with their newest time, sessions are measured, and a user without rows has a profile only.
    """
    rows = [
        Row("b", "x", 1.0, 10 * MINUTE_US),
        Row("a", "x", 2.0, None),
        Row("b", "y", 1.0, 15 * MINUTE_US),
        Row("b", "x", 3.0, 60 * MINUTE_US),
    ]
    assert collect_records(rows, age_groups={"b": "25-34", "c": "55+"}) == [
        UserRecord("a", "unknown", views=1, history=[HistoryItem("x", 2.0, 0)]),
        UserRecord(
            "b",
            "25-34",
            views=3,
            sessions=2,
            session_ms=5 * 60_000,
            as_of_us=60 * MINUTE_US,
            history=[HistoryItem("x", 4.0, 60 * MINUTE_US), HistoryItem("y", 1.0, 15 * MINUTE_US)],
        ),
        UserRecord("c", "55+"),
    ]


def test_a_file_without_rows_is_an_error():
    """A file without interactions raises DataError."""
    with pytest.raises(DataError, match="no interactions"):
        collect_records([], age_groups={"a": "55+"})


def test_a_pause_over_half_an_hour_ends_a_session():
    """A pause of exactly thirty minutes does not end a session."""
    rows = [Row("none", "x", 1.0, None), Row("one", "x", 1.0, 5)]
    rows += [Row("short", "x", 1.0, time_us) for time_us in (30 * MINUTE_US, 0)]
    rows += [Row("long", "x", 1.0, time_us) for time_us in (0, 30 * MINUTE_US + 1)]
    sessions, session_us, newest = measure_sessions(Interactions.of(rows))
    assert sessions.tolist() == [0, 1, 1, 2]
    assert session_us.tolist() == [0, 0, 30 * MINUTE_US, 0]
    assert newest.tolist() == [0, 5, 30 * MINUTE_US, 30 * MINUTE_US + 1]


@given(
    st.lists(
        st.builds(
            Row,
            st.sampled_from("ab"),
            st.sampled_from("xyz"),
            st.sampled_from([1.0, 2.0]),
            st.none() | st.integers(0, 10**12),
        ),
        min_size=1,
    )
)
def test_the_order_of_rows_does_not_matter(rows):
    """A shuffled file gives the same records."""
    assert collect_records(rows, age_groups={}) == collect_records(rows[::-1], age_groups={})


@given(st.lists(st.floats(1e-9, 1e6), min_size=1, max_size=30), st.randoms())
def test_weights_are_summed_exactly(weights, random):
    """Any weights in any order have the same exact sum, and no weight is rounded to zero."""
    rows = [Row("a", "x", weight, None) for weight in weights]
    shuffled = rows.copy()
    random.shuffle(shuffled)
    (first,), (second,) = collect_records(rows, age_groups={}), collect_records(shuffled, age_groups={})
    assert first == second
    rounded = quantise(np.array(weights))
    assert first.history[0].weight == sum(map(Fraction, rounded.tolist()))
    assert (rounded > 0).all()
    assert (abs(rounded - weights) <= 1 / WEIGHT_STEPS).all()


@pytest.mark.parametrize("weight", [1.0, 5.0, 0.5, 3.25, 352698.0])
def test_common_weights_are_not_rounded(weight):
    """Counts, stars and halves are multiples of the weight step."""
    assert quantise(np.array([weight])).tolist() == [weight]
