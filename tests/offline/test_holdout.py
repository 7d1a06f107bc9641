import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline.evaluation.holdout import (
    default_holdout,
    mark_last,
    split_by_date,
    split_off_users,
    split_records,
    split_rows,
)
from offline.interactions import Interactions
from offline.reading.lines import DataError, Row
from recsys.records import HistoryItem, UserRecord


def ties(rows: list[Row]) -> set[tuple[str, str]]:
    return {(row.user_id, row.item_id) for row in rows}


def rows_of(interactions: Interactions) -> list[Row]:
    columns = (interactions.users, interactions.items, interactions.weights, interactions.times_us)
    return [
        Row(interactions.user_ids[user], interactions.item_ids[item], weight, None if time_us < 0 else time_us)
        for user, item, weight, time_us in zip(*(column.tolist() for column in columns), strict=True)
    ]


def test_the_random_holdout_follows_the_reference_protocol():
    """Keys are a permutation in file order; the last floor(n / 5) of each user's ties by key are held out."""
    rows = [Row(user, f"i{n}", 1.0, None) for user, count in (("a", 12), ("b", 4), ("c", 5)) for n in range(count)]
    keys = np.random.default_rng(3).permutation(21).tolist()
    wanted = {}
    for user in "abc":
        mine = sorted((key, row.item_id) for key, row in zip(keys, rows, strict=True) if row.user_id == user)
        out = {item_id for _, item_id in mine[len(mine) - len(mine) // 5 :]}
        if out:
            wanted[user] = out
    split = split_rows(Interactions.of(rows), holdout="random", seed=3)
    assert {user: set(out) for user, out in split.held_out.items()} == wanted
    assert [len(split.held_out.get(user, ())) for user in "abc"] == [2, 0, 1]


def test_the_temporal_holdout_takes_the_newest():
    """The newest interaction with an item decides, and every row of a held-out item leaves the training part."""
    rows = [Row("a", f"i{n}", 1.0, n * 10) for n in range(10)]
    rows += [Row("a", "i0", 1.0, 500), Row("b", "i0", 1.0, 900)]
    split = split_rows(Interactions.of(rows), holdout="temporal")
    assert split.held_out == {"a": ["i0", "i9"]}
    assert ties(rows_of(split.training)) == {("a", f"i{n}") for n in range(1, 9)} | {("b", "i0")}


def test_the_temporal_holdout_requires_times():
    """A row without a time is an error that names it, and such data is split at random by default."""
    rows = [Row("a", "x", 1.0, 5), Row("a", "y", 1.0, None)]
    with pytest.raises(DataError, match="user a, item y"):
        split_rows(Interactions.of(rows), holdout="temporal")
    assert default_holdout(Interactions.of(rows)) == "random"
    assert default_holdout(Interactions.of(rows[:1])) == "temporal"


@given(
    st.lists(
        st.builds(Row, st.sampled_from("ab"), st.sampled_from("uvwxyz"), st.just(1.0), st.integers(0, 9)), min_size=1
    ),
    st.sampled_from(["random", "temporal"]),
)
def test_the_parts_are_disjoint_and_complete(rows, holdout):
    """No tie is in both parts or lost, each user gives floor(n / 5), and the rows keep their order."""
    split = split_rows(Interactions.of(rows), holdout=holdout, seed=1)
    held = {(user, item) for user, items in split.held_out.items() for item in items}
    assert held.isdisjoint(ties(rows_of(split.training)))
    assert held | ties(rows_of(split.training)) == ties(rows)
    for user in "ab":
        mine = {tie for tie in ties(rows) if tie[0] == user}
        assert sum(tie[0] == user for tie in held) == len(mine) // 5
    assert rows_of(split.training) == [row for row in rows if (row.user_id, row.item_id) not in held]


def test_records_are_split_by_their_histories():
    """Records of a store are split by the same rule, and their counters do not change."""
    history = [HistoryItem(f"i{n}", 1.0, 100 - n) for n in range(10)]
    records = [UserRecord("a", "55+", views=12, history=history), UserRecord("b", "55+", history=history[:4])]
    training, held_out = split_records(records, holdout="temporal")
    assert held_out == {"a": ["i0", "i1"]}
    assert training == [UserRecord("a", "55+", views=12, history=history[2:]), records[1]]


def test_marks_are_set_per_owner():
    """Equal keys are ordered by their position in the file."""
    owners = np.array([0, 1, 0, 0, 0, 0, 1])
    assert mark_last(owners, np.zeros(7, np.int64)).tolist() == [False, False, False, False, False, True, False]


def test_a_split_at_a_date_holds_out_what_is_new_to_a_user():
    """Every row from the date on leaves the training part; a later row of a known item is not to be found again."""
    rows = [Row("a", f"i{n}", 1.0, n * 10) for n in range(8)] + [Row("b", "i0", 1.0, 85), Row("a", "i0", 1.0, 90)]
    split, date = split_by_date(Interactions.of(rows))
    assert date == 85
    assert rows_of(split.training) == rows[:8]
    assert split.held_out == {"b": ["i0"]}


def test_users_are_split_off_completely():
    """A fifth of the users, at most a limit, leaves the training part with all rows, and a seed chooses them."""
    rows = [Row(f"u{n}", item, 1.0, None) for n in range(20) for item in "ab"]
    training, strangers = split_off_users(Interactions.of(rows), seed=1, most=100)
    assert {row.user_id for row in rows_of(training)}.isdisjoint(row.user_id for row in rows_of(strangers))
    assert (len(rows_of(training)), len(rows_of(strangers))) == (32, 8)
    assert len(rows_of(split_off_users(Interactions.of(rows), seed=1, most=3)[1])) == 6
