import numpy as np
import pytest

from offline.descriptions import AttributeMap, describe, find_new, trust_new
from recrank.artefact import Item

# Items a0..a9 have the red vector, b0..b9 the blue one. New items follow.
KNOWN = [Item(f"{kind}{n}", "", {"colour": (name,)}) for kind, name in (("a", "red"), ("b", "blue")) for n in range(10)]
NEW = [Item("new-red", "", {"colour": ("red",)}), Item("new-blue", "", {"colour": ("blue", "unheard-of")})]
RED, BLUE = np.array([1.0, 0.0]), np.array([0.0, 1.0])
COUNTS = np.full(20, 5, np.int64)


def arrays() -> dict[str, np.ndarray]:
    """Return vectors by colour, and one neighbour source in which red item n votes for red item n + 1."""
    vectors = np.array([RED] * 10 + [BLUE] * 10, np.float32)
    votes = 9
    return {
        "item_factors": vectors,
        "item_popularity": np.ones(20, np.float32),
        "neighbours_half_lives": np.array([1.0]),
        "neighbours_0_ends": np.minimum(np.arange(21), votes),
        "neighbours_0_items": np.arange(1, 1 + votes, dtype=np.int32),
        "neighbours_0_weights": np.ones(votes, np.float32),
    }


def learned(new: list[Item]) -> AttributeMap:
    found = AttributeMap.of(KNOWN, new)
    assert found is not None
    return found


def test_a_new_item_gets_the_direction_of_items_with_its_attributes():
    """The vector of a new red item points to the red items, and it has no popularity."""
    found = describe(arrays(), COUNTS, learned(NEW), strength=0)
    red, blue = found["item_factors"][20:]
    assert red[0] > 2 * red[1]
    assert blue[1] > 2 * blue[0]
    assert found["item_popularity"].tolist() == [1.0] * 20 + [0.0] * 2
    np.testing.assert_array_equal(found["item_factors"][:20], arrays()["item_factors"])


def test_a_new_item_gets_and_gives_the_votes_of_items_with_its_attributes():
    """Red items vote for the new red item, and the new red item votes for red items."""
    found = describe(arrays(), COUNTS, learned(NEW), strength=0)
    ends, items, weights = (found[f"neighbours_0_{part}"] for part in ("ends", "items", "weights"))
    votes = np.zeros((22, 22))
    votes[np.repeat(np.arange(22), np.diff(ends)), items] = weights
    assert votes[0, 1] == 1
    assert votes[:9, 20].min() > 0
    assert votes[:9, 20].min() > votes[:9, 21].max()
    assert votes[20, 1:10].min() > votes[20, 10:20].max()
    assert not votes[20:, 20:].any()
    assert found["neighbours_known"] == [20]
    assert "neighbours_known" not in describe(arrays(), COUNTS, learned([]), strength=5)


def test_an_item_votes_more_for_new_items_like_it():
    """Red items of both brands vote for the same items, so only their own attributes tell the new items apart."""
    known = [
        Item(f"{kind}{n}", "", {"colour": (name,), "brand": (("acme", "emca")[n % 2],)})
        for kind, name in (("a", "red"), ("b", "blue"))
        for n in range(10)
    ]
    new = [Item(f"new-{brand}", "", {"colour": ("red",), "brand": (brand,)}) for brand in ("acme", "emca")]
    sources = {
        **arrays(),
        "neighbours_0_ends": np.concatenate((np.arange(0, 101, 10), np.full(10, 100))),
        "neighbours_0_items": np.tile(np.arange(10, dtype=np.int32), 10),
        "neighbours_0_weights": np.ones(100, np.float32),
    }
    found_map = AttributeMap.of(known, new)
    assert found_map is not None
    found = describe(sources, COUNTS, found_map, strength=0)
    ends, items, weights = (found[f"neighbours_0_{part}"] for part in ("ends", "items", "weights"))
    votes = np.zeros((22, 22))
    votes[np.repeat(np.arange(22), np.diff(ends)), items] = weights
    assert (votes[0:10:2, 20] > 1.05 * votes[0:10:2, 21]).all()
    assert (votes[1:10:2, 21] > 1.05 * votes[1:10:2, 20]).all()
    np.testing.assert_allclose(np.sum(found_map.directions().toarray() ** 2, axis=1), 1)


def test_a_known_item_moves_towards_its_prediction_by_strength():
    """With strength s, an item with n users adds s / (s + n) of the prediction."""
    own = arrays()["item_factors"]
    predicted = learned([]).predict(own)
    found = describe(arrays(), COUNTS, learned([]), strength=5)
    np.testing.assert_allclose(found["item_factors"], own + predicted / 2, rtol=1e-6)


def test_trust_scales_only_new_items():
    """Trust multiplies the vectors of new items and the votes for them, and changes no argument."""
    found = describe(arrays(), COUNTS, learned(NEW), strength=0)
    before = {name: array.copy() for name, array in found.items()}
    trusted = trust_new(found, 20, 3.0)
    np.testing.assert_allclose(trusted["item_factors"][20:], 3 * found["item_factors"][20:], rtol=1e-6)
    np.testing.assert_array_equal(trusted["item_factors"][:20], found["item_factors"][:20])
    new = found["neighbours_0_items"] >= 20
    factors = trusted["neighbours_0_weights"] / found["neighbours_0_weights"]
    np.testing.assert_allclose(factors, np.where(new, 3.0, 1.0), rtol=1e-6)
    for name, array in before.items():
        np.testing.assert_array_equal(found[name], array)


def test_only_items_with_shared_attributes_can_be_new():
    """An item is new if it has no interactions and an attribute value that at least two known items have."""
    strange = [Item("x"), Item("y", "", {"colour": ("green",)}), Item("a0", "", {"colour": ("red",)})]
    assert find_new([*strange, *NEW[::-1]], KNOWN) == NEW
    assert AttributeMap.of([Item("x"), Item("y", "", {"colour": ("red",)})], []) is None


@pytest.mark.parametrize("name", ["category", "brand"])
def test_the_same_value_of_two_attributes_is_two_values(name):
    """Acme the brand tells nothing about Acme the category."""
    known = [Item(f"k{n}", "", {name: ("acme",)}) for n in range(3)]
    other = {"category": "brand", "brand": "category"}[name]
    assert find_new([Item("new", "", {other: ("acme",)})], known) == []
