from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline.collecting import WEIGHT_STEPS, collect_records, measure_sessions, quantise
from offline.reading.lines import DataError, Row
from recsys.stores.port import HistoryItem, UserRecord

MINUTE_US = 60 * 1_000_000


def test_rows_become_records():
    """Ties are summed with their newest time, sessions measured, and users without rows have a profile only."""
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


def test_no_rows_are_an_error():
    """A file without interactions is not an empty catalogue."""
    with pytest.raises(DataError, match="no interactions"):
        collect_records([], age_groups={"a": "55+"})


def test_a_pause_of_half_an_hour_ends_a_session():
    """Exactly thirty minutes still belong together, more do not."""
    assert measure_sessions([]) == (0, 0)
    assert measure_sessions([5]) == (1, 0)
    assert measure_sessions([0, 30 * MINUTE_US]) == (1, 30 * MINUTE_US)
    assert measure_sessions([0, 30 * MINUTE_US + 1]) == (2, 0)


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
def test_sums_of_weights_are_exact(weights, random):
    """Any weights, in any order, on top of any others: the same sum to the last bit, and never nothing."""
    rows = [Row("a", "x", weight, None) for weight in weights]
    shuffled = rows.copy()
    random.shuffle(shuffled)
    (first,), (second,) = collect_records(rows, age_groups={}), collect_records(shuffled, age_groups={})
    assert first == second
    assert first.history[0].weight == sum(Fraction(quantise(weight)) for weight in weights)
    assert all(quantise(weight) > 0 and abs(quantise(weight) - weight) <= 1 / WEIGHT_STEPS for weight in weights)


@pytest.mark.parametrize("weight", [1.0, 5.0, 0.5, 3.25, 352698.0])
def test_usual_weights_stay_what_they_are(weight):
    """Counts, stars and halves are multiples already."""
    assert quantise(weight) == weight
