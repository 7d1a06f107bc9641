import numpy as np
import pytest

from offline import pairs
from offline.pairs import View, count_pairs

PLAIN = View(0.0, 0.0, 0.0, 1.0)


def histories(*lists: list[int]) -> list[np.ndarray]:
    return [np.array(each, np.int32) for each in lists]


def test_an_ordered_pair_counts_by_its_distance():
    """The next item counts 1, the one after it 1 / sqrt 2, and the reverse order nothing."""
    counted = count_pairs(histories([0, 1, 2], [1, 2], []), items=3, ordered=True)
    assert counted.counts.toarray() == pytest.approx(np.array([[0, 1, 2**-0.5], [0, 0, 2], [0, 0, 0]]))
    assert counted.users.tolist() == [1, 2, 2]


def test_without_an_order_every_pair_counts_alike():
    """Without an order, the matrix of counts is symmetric, and its diagonal is empty."""
    counted = count_pairs(histories([0, 1, 2], [2, 1]), items=3, ordered=False)
    assert counted.counts.toarray().tolist() == [[0, 1, 1], [1, 0, 2], [1, 2, 0]]


def test_a_view_discounts_what_is_well_known_and_may_look_back():
    """The weight of a pair applies both exponents and the share of the reverse order; the test computes it by hand."""
    counted = count_pairs(histories([0, 1], [0, 1], [1, 0], [1]), items=2, ordered=True)
    found = counted.neighbours(View(0.5, 0.5, 0.25, 2.0))
    # 2 users had 0 before 1, one the other way round; item 0 has 3 users, item 1 has 4.
    assert found.items.tolist() == [1, 0]
    assert found.weights == pytest.approx([2.5 / 3**0.5 / 4**0.25, 2.0 / 4**0.5 / 3**0.25])
    assert found.half_life == 2.0


def test_only_the_strongest_neighbours_are_kept(monkeypatch):
    """Each item keeps its strongest neighbours; ties go to the lower item."""
    monkeypatch.setattr(pairs, "_MOST_NEIGHBOURS", 2)
    counted = count_pairs(histories([0, 3], [0, 2], [0, 1], [0, 3]), items=4, ordered=True)
    found = counted.neighbours(PLAIN)
    assert found.items.tolist() == [3, 1]
    assert found.ends.tolist() == [0, 2, 2, 2, 2]
    found.check(items=4)


def test_neighbours_can_be_made_for_some_items_only():
    """Only the given items get neighbours."""
    counted = count_pairs(histories([0, 1, 2]), items=3, ordered=True)
    assert counted.neighbours(PLAIN, only=np.array([False, True, False])).ends.tolist() == [0, 0, 1, 1]


def test_blocks_add_up_and_memory_bounds_the_reach(monkeypatch):
    """The size of the blocks changes no count, and for large data only near items form pairs."""
    rng = np.random.default_rng(0)
    many = [rng.permutation(40)[:30].astype(np.int32) for _ in range(20)]
    whole = count_pairs(many, items=40, ordered=True).counts.toarray()
    monkeypatch.setattr(pairs, "_BLOCK_PAIRS", 100)
    assert count_pairs(many, items=40, ordered=True).counts.toarray() == pytest.approx(whole)
    monkeypatch.setattr(pairs, "_MOST_PAIRS", 600 * 7)
    assert 0 < count_pairs(many, items=40, ordered=True).counts.sum() < whole.sum()


def test_long_unordered_histories_are_thinned(monkeypatch):
    """The number of pairs grows by the square, so evenly spaced items represent a long history."""
    monkeypatch.setattr(pairs, "_MOST_UNORDERED", 10)
    counted = count_pairs([np.arange(100, dtype=np.int32)], items=100, ordered=False)
    assert np.unique(counted.counts.indices).tolist() == list(range(0, 100, 10))


def test_ordered_histories_may_also_count_users_with_both_items():
    """A view of pairs at any distance has the counts of data without times; the other views keep their counts."""
    both = histories([0, 1, 2], [2, 1])
    counted = count_pairs(both, items=3, ordered=True, together=True)
    unordered = count_pairs(both, items=3, ordered=False)
    assert counted.together is not None
    assert counted.together.toarray().tolist() == unordered.counts.toarray().tolist()
    found = counted.neighbours(View(0.0, 0.5, 0.5, 0.0, together=True))
    wanted = unordered.neighbours(View(0.0, 0.5, 0.5, 0.0))
    assert found.items.tolist() == wanted.items.tolist()
    assert found.weights.tolist() == wanted.weights.tolist()
    assert counted.neighbours(PLAIN).items.tolist() == [1, 2, 2, 1]


def test_memory_bounds_the_pairs_at_any_distance(monkeypatch):
    """Long histories are thinned until the pairs of all users fit the limit."""
    monkeypatch.setattr(pairs, "_MOST_TOGETHER", 500)
    many = [np.arange(40, dtype=np.int32) for _ in range(5)]
    counted = count_pairs(many, items=40, ordered=True, together=True)
    assert counted.together is not None
    assert np.unique(counted.together.indices).tolist() == list(range(0, 40, 4))


def test_a_view_without_its_counts_is_refused():
    """The error names what is missing."""
    counted = count_pairs(histories([0, 1]), items=2, ordered=True)
    with pytest.raises(ValueError, match="together=True"):
        counted.neighbours(View(0.0, 0.5, 0.5, 0.0, together=True))
