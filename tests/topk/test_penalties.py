"""A penalty keeps out the rows that no user may get, with the same result as a list of the rows."""

import numpy as np
import pytest

from topk.item_table import DENSE_ITEMS, ItemTable, ShapeMismatchError
from topk.row_lists import RowLists
from topk.scoring import penalty_pays, score_candidates


@pytest.mark.parametrize("items", [DENSE_ITEMS, 3 * DENSE_ITEMS])
@pytest.mark.parametrize("users", [1, 3])
def test_a_penalty_gives_the_answer_of_positions(items, users):
    """Both ways give the same bits, also for a user who scores all items 0, and with exclusions."""
    rng = np.random.default_rng(0)
    table = ItemTable.of(rng.standard_normal((items, 16), dtype=np.float32))
    vectors = rng.standard_normal((users, 16)).astype(np.float32)
    closed = np.flatnonzero(rng.random(items) < 0.5)
    penalty = np.zeros(items, np.float32)
    penalty[closed] = -np.inf
    exclude = RowLists.of([rng.choice(items, 50, replace=False) for _ in range(users)])
    for asked in (vectors, np.zeros_like(vectors)):
        one = score_candidates(asked, table, limit=60, exclude=exclude, unavailable=closed)
        other = score_candidates(asked, table, limit=60, exclude=exclude, penalty=penalty)
        assert one.ids.tobytes() == other.ids.tobytes()
        assert one.scores.tobytes() == other.scores.tobytes()
        assert not np.isin(other.ids, closed).any()


def test_a_penalty_that_does_not_fit_is_refused():
    """The penalty has one number for each item."""
    table = ItemTable.of(np.ones((20, 4), np.float32))
    with pytest.raises(ShapeMismatchError, match="penalty"):
        score_candidates(np.ones((1, 4), np.float32), table, limit=5, penalty=np.zeros(19, np.float32))


def test_a_penalty_pays_for_a_lone_user_and_many_closed_rows():
    """A few closed rows, and the users of a batch, are left out by position."""
    assert penalty_pays(500, items=1000, users=1)
    assert not penalty_pays(990, items=1000, users=1)
    assert not penalty_pays(500, items=1000, users=2)
