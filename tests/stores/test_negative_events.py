"""Events with a negative weight, in every store: what ties they leave, and what a request gets."""

import msgspec
import pytest

from recstore.port import FeatureStore
from recsys.features import UNKNOWN_FEATURES
from recsys.records import HistoryItem, Interaction, UserRecord
from tests.stores.test_conformance import scan_all, store

__all__ = ["store"]


def act(number: int, item: str, weight: float, *, time_us: int = 0, counter: str | None = None) -> Interaction:
    return Interaction("//shop", str(number), "zoe", "act", 10**15 + time_us, item, weight=weight, counter=counter)


async def read(store: FeatureStore, *, history: int = 10) -> tuple[list[str], list[str]]:
    (known,) = await store.read(["zoe"], history=history)
    assert known is not None
    return known.recent, known.avoided


EVENTS = [
    act(1, "kept", 5.0, time_us=10, counter="purchases"),
    act(2, "kept", -2.0, time_us=50),
    act(3, "returned", 5.0, time_us=20, counter="purchases"),
    act(4, "returned", -5.0, time_us=30),
    act(5, "disliked", -3.0, time_us=40),
    act(6, "forgiven", -1.0, time_us=60),
    act(7, "forgiven", 1.5, time_us=5, counter="views"),
]
LISTS = (["forgiven", "kept"], ["disliked", "returned"])


@pytest.mark.parametrize("order", [1, -1])
async def test_a_tie_not_above_0_is_avoided_and_never_history(store, order):
    """The sum of the weights decides, in any order of the events; both lists are newest first."""
    await store.apply(EVENTS[::order])
    assert await read(store) == LISTS
    (zoe,) = (each for each in await scan_all(store) if each.user_id == "zoe")
    assert zoe.history == [HistoryItem("forgiven", 0.5, 10**15 + 60), HistoryItem("kept", 3.0, 10**15 + 50)]
    assert zoe.avoided == [HistoryItem("disliked", -3.0, 10**15 + 40), HistoryItem("returned", 0.0, 10**15 + 30)]
    assert (zoe.views, zoe.clicks, zoe.purchases) == (1, 0, 2)


async def test_replaced_records_keep_their_avoided_items(store):
    """A copy of a store holds the same records, and later events add to the same ties."""
    await store.apply(EVENTS)
    records = await scan_all(store)
    await store.replace(records, population=UNKNOWN_FEATURES)
    assert await scan_all(store) == records
    await store.apply([act(8, "disliked", 4.0, time_us=70)])
    assert await read(store) == (["disliked", "forgiven", "kept"], ["returned"])


async def test_a_history_of_no_items_has_no_avoided_ones(store):
    """The limit of the history holds for both lists."""
    await store.apply(EVENTS)
    assert await read(store, history=0) == ([], [])


def test_a_record_cuts_both_lists():
    """The part that a request needs has at most as many items of each kind."""
    items = [HistoryItem(name, 1.0, 1) for name in "abc"]
    known = UserRecord("zoe", "55+", history=items, avoided=items[:1]).known(history=2)
    assert (known.recent, known.avoided) == (["a", "b"], ["a"])
    assert msgspec.structs.asdict(known)["age_group"] == "55+"


async def test_an_erasure_removes_avoided_items_too(store):
    """Nothing of the user is left, and the receipt counts the items of both lists."""
    await store.apply(EVENTS)
    removed = await store.erase("zoe", at_us=2 * 10**15)
    assert (removed.users, removed.items) == (1, 4)
    assert await store.read(["zoe"], history=10) == [None]
    assert "zoe" not in [each.user_id for each in await scan_all(store)]
