from typing import Any

import numpy as np
import pytest

from recrank.neighbours import Neighbours, Scored, Views
from topk.item_table import ShapeMismatchError
from topk.row_lists import RowLists

ITEMS, KNOWN_ITEMS = 200, 150


def make_neighbours(*, half_life: float = 3.0, seed: int = 0) -> Neighbours:
    """Return 20 random neighbours for every item."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([np.sort(rng.choice(ITEMS, 20, replace=False)) for _ in range(ITEMS)])
    weights = rng.random(rows.size).astype(np.float32) + np.float32(0.01)
    return Neighbours(np.arange(ITEMS + 1) * 20, rows.astype(np.int32), weights, half_life)


def count(history: RowLists, *sources: Neighbours) -> Scored:
    """Return the scores that all views give every user."""
    views = Views.of(sources, items=sources[0].ends.size - 1)
    return views.score(history, wanted=np.ones((len(sources), history.ends.size - 1), np.bool_))


def make_history(users: int) -> RowLists:
    rng = np.random.default_rng(1)
    return RowLists.of([rng.choice(ITEMS, size % 60, replace=False) for size in range(0, users * 7, 7)])


def test_votes_add_up_by_their_place_in_the_history():
    """A score is the sum of votes that halve with every half-life back; the test computes a small case by hand."""
    source = Neighbours(
        np.array([0, 2, 3, 3]), np.array([1, 2, 2], np.int32), np.array([0.5, 0.25, 1.0], np.float32), half_life=1.0
    )
    scored = count(RowLists.of([[1, 0], [], [0]]), source)
    assert scored.cells.tolist() == [1, 2, 7, 8]
    assert scored.scores.tolist() == [0.25, 1.0 + 0.125, 0.5, 0.25]


@pytest.mark.parametrize("half_life", [0.0, 1.0, 3.0, 20.0])
def test_a_batch_scores_what_its_users_alone_would(half_life):
    """A user's scores have the same bits alone and in a batch, for histories of any length."""
    source, history = make_neighbours(half_life=half_life), make_history(40)
    together = count(history, source)
    for user in range(40):
        alone = count(RowLists.of([history.part(user)]), source)
        mine = together.cells // ITEMS == user
        assert (together.cells[mine] - user * ITEMS).tolist() == alone.cells.tolist()
        assert together.scores[mine].tobytes() == alone.scores.tobytes()


def test_both_ways_to_count_agree():
    """The scores of the whole catalogue are those of the items with votes, and 0 elsewhere."""
    views, history = Views.of([make_neighbours(), make_neighbours(seed=4)], items=ITEMS), make_history(30)
    wanted = np.random.default_rng(2).random((2, 30)) < 0.7
    scored, whole = views.score(history, wanted=wanted), views.score_all(history, wanted=wanted)
    assert whole.shape == (2, 30, ITEMS)
    assert scored.cells.tolist() == whole.reshape(-1).nonzero()[0].tolist()
    assert scored.scores.tobytes() == whole.reshape(-1)[scored.cells].astype(np.float32).tobytes()
    assert not whole[~wanted].any()
    assert whole[wanted].any()


def test_views_are_counted_together_as_alone():
    """A view's scores do not depend on the other views, each with its own half-life."""
    views, history = [make_neighbours(half_life=1.0), make_neighbours(half_life=0.0, seed=4)], make_history(30)
    together = count(history, *views)
    for number, view in enumerate(views):
        mine = together.cells // (30 * ITEMS) == number
        alone = count(history, view)
        assert (together.cells[mine] - number * 30 * ITEMS).tolist() == alone.cells.tolist()
        assert together.scores[mine].tobytes() == alone.scores.tobytes()


def test_old_items_fade_out():
    """Items older than five half-lives have no vote; without a half-life, the hundred newest items vote."""
    rows = np.arange(ITEMS)
    for half_life, voters in [(1.0, 5), (3.0, 15), (0.0, 100)]:
        source = make_neighbours(half_life=half_life)
        cut, whole = (count(RowLists.of([rows[:size]]), source) for size in (voters, ITEMS))
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


def test_closed_cells_are_left_out():
    """Closed cells lose their scores, the others keep theirs, and cells without a score may be closed."""
    whole = count(make_history(30), make_neighbours())
    closed = np.sort(np.concatenate([whole.cells[::3], np.setdiff1d(np.arange(30 * ITEMS), whole.cells)[::7]]))
    left = whole.without(closed)
    assert left.cells.tolist() == np.setdiff1d(whole.cells, closed).tolist()
    assert left.at(left.cells).tobytes() == whole.at(left.cells).tobytes()
    assert count(RowLists.of([[]]), make_neighbours()).without(np.array([3])).cells.size == 0


def joined(*sources: Neighbours) -> Views:
    """Return views in which the items from row KNOWN_ITEMS on are new."""
    return Views.of(sources, items=ITEMS, known=KNOWN_ITEMS)


def test_half_of_a_vote_for_a_new_item_is_even():
    """Half of the strength follows the half-life. The other half is its mean, for each item of the history."""
    ends, items = np.arange(9), np.array([8, 0, 8, 8, 8, 8, 8, 8], np.int32)
    source = Neighbours(np.concatenate([ends, ends[-1:]]), items, np.ones(8, np.float32), half_life=1.0)
    views = Views.of([source], items=9, known=8)
    scores = views.score_all(RowLists.of([[0, 1, 2], list(range(8))]), wanted=np.ones((1, 2), np.bool_))[0]
    # The item in row 1 votes for a known one. At this half-life, five items vote for known ones. All items share the even half.
    assert scores[0, 8] == pytest.approx(0.5 * (1 + 0.25) + 2 * 0.5 * (1.75 / 3))
    assert scores[1, 8] == pytest.approx(0.5 * (1.9375 - 0.5) + 7 * 0.5 * (1.9375 / 8))
    assert scores[:, 0].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("half_life", [0.0, 1.0, 3.0])
def test_new_items_change_no_score_of_a_known_one(half_life):
    """Known items get the same bits as without new ones; without a half-life, new items do, too."""
    views, history = [make_neighbours(half_life=half_life), make_neighbours(seed=4)], make_history(30)
    wanted = np.ones((2, 30), np.bool_)
    before = Views.of(views, items=ITEMS).score_all(history, wanted=wanted)
    after = joined(*views).score_all(history, wanted=wanted)
    assert after[:, :, :KNOWN_ITEMS].tobytes() == before[:, :, :KNOWN_ITEMS].tobytes()
    assert np.allclose(after[0], before[0]) == (half_life == 0)


def test_a_batch_scores_new_items_as_its_users_alone_would():
    """The even share depends on the history of the user alone."""
    views, history = joined(make_neighbours(), make_neighbours(half_life=1.0, seed=4)), make_history(40)
    together = views.score_all(history, wanted=np.ones((2, 40), np.bool_))
    for user in range(40):
        alone = views.score_all(RowLists.of([history.part(user)]), wanted=np.ones((2, 1), np.bool_))
        assert together[:, user].tobytes() == alone[:, 0].tobytes()


def test_the_terms_of_a_history_add_up_to_its_scores():
    """The terms are the votes behind a score, of known and of new items, times the weights of the views."""
    views, history = joined(make_neighbours(), make_neighbours(half_life=1.0, seed=4)), np.arange(120)
    scores = views.score_all(RowLists.of([history]), wanted=np.ones((2, 1), np.bool_))[:, 0]
    terms = views.terms(history, np.arange(ITEMS), np.array([0.25, 2.0]))
    assert np.allclose(terms.sum(axis=0), 0.25 * scores[0] + 2 * scores[1])
    assert not views.terms(history, np.arange(ITEMS), np.zeros(2)).any()


def test_new_neighbours_before_known_ones_are_refused():
    """A row whose new neighbours do not come last would count them as known ones."""
    source = Neighbours(np.array([0, 2, 2]), np.array([1, 0], np.int32), np.ones(2, np.float32), 1.0)
    with pytest.raises(ShapeMismatchError, match="known items must come before new ones"):
        Views.of([source], items=2, known=1)
