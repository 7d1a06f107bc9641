from typing import Any

import numpy as np
import pytest

from recsys.ranking.item_table import ShapeMismatchError
from recsys.ranking.neighbours import Neighbours, Scored
from recsys.ranking.row_lists import RowLists

ITEMS = 200
OPEN = np.empty(0, np.int64)


def make_neighbours(*, half_life: float = 3.0, seed: int = 0) -> Neighbours:
    """Return 20 random neighbours for every item."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([np.sort(rng.choice(ITEMS, 20, replace=False)) for _ in range(ITEMS)])
    weights = rng.random(rows.size).astype(np.float32) + np.float32(0.01)
    return Neighbours(np.arange(ITEMS + 1) * 20, rows.astype(np.int32), weights, half_life)


def make_history(users: int) -> RowLists:
    rng = np.random.default_rng(1)
    return RowLists.of([rng.choice(ITEMS, size % 60, replace=False) for size in range(0, users * 7, 7)])


def test_votes_add_up_by_their_place_in_the_history():
    """A score is the sum of votes that halve with every half-life back; the test computes a small case by hand."""
    source = Neighbours(
        np.array([0, 2, 3, 3]), np.array([1, 2, 2], np.int32), np.array([0.5, 0.25, 1.0], np.float32), half_life=1.0
    )
    scored = source.score(RowLists.of([np.array([1, 0]), np.array([], np.int64), np.array([0])]), closed=OPEN)
    assert scored.cells.tolist() == [1, 2, 7, 8]
    assert scored.scores.tolist() == [0.25, 1.0 + 0.125, 0.5, 0.25]


@pytest.mark.parametrize("half_life", [0.0, 1.0, 3.0, 20.0])
def test_a_batch_scores_what_its_users_alone_would(half_life):
    """A user's scores have the same bits alone and in a batch, for histories of any length."""
    source, history = make_neighbours(half_life=half_life), make_history(40)
    together = source.score(history, closed=OPEN)
    for user in range(40):
        alone = source.score(RowLists.of([history.part(user)]), closed=OPEN)
        mine = together.cells // ITEMS == user
        assert (together.cells[mine] - user * ITEMS).tolist() == alone.cells.tolist()
        assert together.scores[mine].tobytes() == alone.scores.tobytes()


def test_large_catalogues_are_scored_in_blocks(monkeypatch):
    """The number of users per block changes no score."""
    source, history = make_neighbours(), make_history(30)
    whole = source.score(history, closed=OPEN)
    monkeypatch.setattr("recsys.ranking.neighbours._BLOCK_CELLS", 3 * ITEMS)
    blocks = source.score(history, closed=OPEN)
    assert whole.cells.tolist() == blocks.cells.tolist()
    assert whole.scores.tobytes() == blocks.scores.tobytes()


def test_old_items_fade_out():
    """Items older than five half-lives have no vote; without a half-life, the hundred newest items vote."""
    rows = np.arange(ITEMS)
    for half_life, voters in [(1.0, 5), (3.0, 15), (0.0, 100)]:
        source = make_neighbours(half_life=half_life)
        cut, whole = (source.score(RowLists.of([rows[:size]]), closed=OPEN) for size in (voters, ITEMS))
        assert cut.scores.tobytes() == whole.scores.tobytes()


def test_scores_are_looked_up_by_cell():
    """A cell without a score has 0, even if no cell has a score."""
    scored = Scored(np.array([2, 5]), np.array([0.5, 0.25], np.float32))
    assert scored.at(np.array([0, 2, 5, 9])).tolist() == [0, 0.5, 0.25, 0]
    assert Scored(np.empty(0, np.int64), np.empty(0, np.float32)).at(np.array([1])).tolist() == [0]


@pytest.mark.parametrize(
    "broken",
    [
        {"ends": np.array([0, 1])},
        {"ends": np.array([0, 2, 1])},
        {"items": np.array([0, 2], np.int32)},
        {"items": np.array([0], np.int32)},
        {"weights": np.array([1, 0], np.float32)},
        {"half_life": -1.0},
    ],
)
def test_arrays_that_do_not_fit_are_refused(broken):
    """Arrays of another length, rows outside the catalogue and weights of 0 raise an error."""
    good: dict[str, Any] = {
        "ends": np.array([0, 1, 2]),
        "items": np.array([1, 0], np.int32),
        "weights": np.array([1, 1], np.float32),
        "half_life": 1.0,
    }
    Neighbours(**good).check(items=2)
    with pytest.raises(ShapeMismatchError):
        Neighbours(**{**good, **broken}).check(items=2)


def test_closed_items_get_no_score(monkeypatch):
    """Closed items get no score for their user but do for other users, also when users are scored in blocks."""
    source, history = make_neighbours(), make_history(30)
    whole = source.score(history, closed=OPEN)
    closed = whole.cells[::3]
    monkeypatch.setattr("recsys.ranking.neighbours._BLOCK_CELLS", 3 * ITEMS)
    assert source.score(history, closed=closed).cells.tolist() == np.setdiff1d(whole.cells, closed).tolist()
