from math import log2

import numpy as np
import pytest

from offline.evaluation.quality import DEPTH, bootstrap, make_task, measure
from recsys.records import HistoryItem, UserRecord


def record(user_id: str, items: str) -> UserRecord:
    return UserRecord(user_id, "unknown", history=[HistoryItem(item_id, 1.0, 0) for item_id in items])


def lists_of(*rows: list[int]) -> np.ndarray:
    return np.array([row + [-1] * (DEPTH - len(row)) for row in rows], np.int64)


# Columns: a 0, b 1, c 2, d 3, e 4, and 5 for z, which is not in the training data.
RECORDS = [record("u", "ab"), record("v", "abc"), record("w", "ade")]
TASK = make_task(RECORDS, {"u": ["c", "e", "z"], "w": ["b"]})


def test_figures_equal_a_calculation_by_hand():
    """One user's list holds two of three items, on places 1 and 3; the other's holds its single item on place 2."""
    quality = measure(lists_of([2, 3, 4], [2, 1]), TASK.panel)
    ideal = 1 + 1 / log2(3) + 1 / log2(4)
    assert quality.ndcg.tolist() == pytest.approx([(1 + 1 / log2(4)) / ideal, 1 / log2(3)])
    assert quality.recall.tolist() == pytest.approx([2 / 3, 1.0])
    assert quality.recall_reachable.tolist() == quality.recall.tolist()
    # The lists hold b, c, d and e of five items, and c twice; b has popularity 2 and the others 1. The held-out items
    # c, e, z and b have popularity 1, 1, 0 and 2.
    assert quality.coverage == pytest.approx(4 / 5)
    assert quality.popularity_bias == pytest.approx((1 + 1 + 1 + 1 + 2) / 5 / 1.0)


def test_perfect_lists_score_one_and_worthless_lists_zero():
    """A list with all held-out items first scores 1, and a list without any, even an empty one, scores 0."""
    best = measure(lists_of([2, 4, 5], [1]), TASK.panel)
    assert np.allclose(best.ndcg, 1)
    assert np.allclose(best.recall, 1)
    worst = measure(lists_of([3], []), TASK.panel)
    assert not worst.ndcg.any()
    assert not worst.recall.any()
    assert measure(lists_of([], []), TASK.panel).popularity_bias == 0


def test_places_beyond_ten_count_for_recall_only():
    """NDCG uses ten places and recall twenty."""
    crowd = [record(f"u{n}", chr(65 + n)) for n in range(26)]
    task = make_task(crowd, {"u0": ["Z"]})
    place_11 = measure(lists_of([*range(1, 11), task.columns["Z"]]), task.panel)
    assert (place_11.ndcg.tolist(), place_11.recall.tolist()) == ([0.0], [1.0])


def test_users_can_be_sampled():
    """A task with a limit always contains the same sample of users."""
    crowd = [record(f"u{n}", "ab") for n in range(50)]
    held_out = {f"u{n}": ["c"] for n in range(50)}
    first, second = (make_task(crowd, held_out, most=10) for _ in range(2))
    assert first.users.size == 10
    assert (first.users == second.users).all()
    assert make_task(crowd, held_out).users.size == 50


def test_an_interval_contains_the_mean_and_shrinks_with_more_users():
    """The interval extends about 1.96 standard errors to each side and is the same on every call."""
    values = np.random.default_rng(0).random(400)
    (wide,), (narrow,) = bootstrap(values[:100, None]), bootstrap(values[:, None])
    assert wide.low < wide.mean < wide.high
    reach = (narrow.high - narrow.low) / 2
    assert reach == pytest.approx(1.96 * values.std() / 20, rel=0.1)
    assert reach < wide.high - wide.mean
    assert bootstrap(values[:, None]) == [narrow]
    assert bootstrap(np.stack([values, values**2], axis=1))[0].low == pytest.approx(narrow.low)


def test_recall_over_reachable_items_can_be_one():
    """A user with more held-out items than a list has places reaches 1 with a list of hits; plain recall does not."""
    crowd = [record("u0", "a"), *(record(f"u{n}", chr(65 + n)) for n in range(26))]
    task = make_task(crowd[:1] + crowd[2:], {"u0": [chr(66 + n) for n in range(25)]})
    quality = measure(lists_of([task.columns[chr(66 + n)] for n in range(20)]), task.panel)
    assert (quality.recall.tolist(), quality.recall_reachable.tolist()) == ([20 / 25], [1.0])


def test_new_items_are_the_held_out_items_without_training():
    """Only users with such items stay, and only these items are to be found."""
    panel = TASK.panel.new_items()
    assert [record.user_id for record in panel.records] == ["u"]
    assert panel.held.indices.tolist() == [TASK.columns["z"]]
    assert TASK.held.nnz == 4
