"""One suite that every feature store passes."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing

import msgspec
import pytest

from recstore.port import EventOutcome, FeatureStore, StoreFormatError, StoreUnavailableError
from recsys.contracts.wire import Features
from recsys.declaration.reader import default_declaration
from recsys.declaration.types import SESSION_END
from recsys.features import UNKNOWN_FEATURES
from recsys.records import HistoryItem, Interaction, KnownUser, UserRecord
from tests.clock import Clock
from tests.stores.conftest import Opener

NEW, SEEN = EventOutcome.ACCEPTED, EventOutcome.REPEATED
POPULATION = Features(age_group="unknown", avg_session_duration=61.5, total_purchases=2, engagement_score=0.25)

ANN = UserRecord(
    "ann",
    "25-34",
    views=3,
    clicks=2,
    purchases=1,
    sessions=2,
    session_ms=61_500,
    as_of_us=1_700_000_000_000_001,
    history=[HistoryItem("c", 1.5, 300), HistoryItem("a", 2.0, 200), HistoryItem("b", 1.0, 200)],
)
BOB = UserRecord("bob", "unknown")
ODD = UserRecord("Ω'; DROP TABLE users; --\x7f", "55+", views=1, history=[HistoryItem('"quoted"', 1.0, 1)])


BRACED = UserRecord("a}b{c:%7d*?[x]", "55+", history=[HistoryItem("}", 0.5, 1)])


def as_read(*records: UserRecord | None) -> list[KnownUser | None]:
    return [record.known(history=10) if record else None for record in records]


async def scan_all(store: FeatureStore) -> list[UserRecord]:
    return [record async for record in store.scan()]


@pytest.fixture
async def store(opener: Opener) -> AsyncIterator[FeatureStore]:
    opened = opener()
    await opened.replace([BOB, ANN, ODD], population=POPULATION)
    yield opened
    await opened.aclose()


async def test_a_stored_record_can_be_read(store):
    """A read returns the record as stored, with the history newest first and ties by item id."""
    assert await store.read(["ann"], history=10) == as_read(ANN)


async def test_users_are_read_in_the_order_requested(store):
    """The result has None for an unknown user, and repeats a repeated user."""
    assert await store.read(["bob", "nobody", "ann", "bob"], history=10) == as_read(BOB, None, ANN, BOB)


async def test_ids_have_no_special_meaning(store):
    """A store does not interpret quotes, other scripts, patterns or SQL in ids."""
    assert await store.read([ODD.user_id, "ann"], history=10) == as_read(ODD, ANN)
    await store.replace([ODD, BRACED], population=UNKNOWN_FEATURES)
    assert await store.read([BRACED.user_id, ODD.user_id, "ann"], history=10) == as_read(BRACED, ODD, None)
    assert await scan_all(store) == [BRACED, ODD]


async def test_reading_no_users_returns_nothing(store):
    """A read of no users returns an empty list."""
    assert await store.read([], history=10) == []


async def test_the_history_is_limited_to_the_newest_items(store):
    """The limit keeps the newest items and does not change the counters."""
    (ann,) = await store.read(["ann"], history=2)
    assert ann.recent == ["c", "a"]
    assert ann.views == 3
    (ann,) = await store.read(["ann"], history=0)
    assert (ann.recent, ann.views) == ([], 3)


async def test_population_defaults_are_stored(store):
    """The defaults for unknown users are those of the last replacement."""
    assert await store.population() == POPULATION


async def test_a_replacement_replaces_everything(store):
    """After a replacement nothing of the earlier content is left."""
    assert await store.replace([BOB], population=UNKNOWN_FEATURES) == 1
    assert await store.read(["ann", "bob"], history=10) == as_read(None, BOB)
    assert await store.population() == UNKNOWN_FEATURES


@pytest.mark.parametrize("use", ["read", "apply", "population"])
async def test_a_store_in_use_can_be_replaced(store, use):
    """A store that is used during a replacement holds the complete new content afterwards."""
    records = [UserRecord(f"user_{number:04}", "55+", history=[HistoryItem("a", 1.0, 1)]) for number in range(1000)]
    asks: dict[str, Callable[[], Awaitable[object]]] = {
        "read": lambda: store.read(["user_0001"], history=1),
        "apply": lambda: store.apply([interaction(1, user_id="somebody_else")]),
        "population": store.population,
    }
    replacing = asyncio.create_task(store.replace(records, population=POPULATION))
    while not replacing.done():
        await asks[use]()
        await asyncio.sleep(0)
    assert await replacing == 1000
    assert [record for record in await scan_all(store) if record.user_id != "somebody_else"] == records
    assert await store.population() == POPULATION


async def test_a_failed_replacement_changes_nothing(store):
    """When the source of records fails half-way, the earlier content stays."""

    def broken() -> Iterator[UserRecord]:
        yield BOB
        raise ConnectionError("the source went away")

    with pytest.raises(ConnectionError):
        await store.replace(broken(), population=UNKNOWN_FEATURES)
    assert await store.read(["ann", "bob"], history=10) == as_read(ANN, BOB)
    assert await store.population() == POPULATION


@pytest.mark.parametrize(("counter", "value"), [("views", 2**53 + 1), ("session_ms", 2**63 - 1), ("sessions", -1)])
async def test_counters_out_of_range_are_refused(store, counter, value):
    """A replacement with a counter out of range changes nothing; at the upper bound events are still counted."""
    nobody = UserRecord("zoe", "55+")
    with pytest.raises(StoreFormatError, match=counter):
        await store.replace([BOB, msgspec.structs.replace(nobody, **{counter: value})], population=UNKNOWN_FEATURES)
    assert await scan_all(store) == [ANN, BOB, ODD]
    await store.replace([msgspec.structs.replace(nobody, **{counter: 2**53})], population=UNKNOWN_FEATURES)
    ended = interaction(1, kind="session_end", item_id=None, duration_ms=5)
    assert await store.apply([interaction(2), ended]) == [NEW, NEW]
    (zoe,) = await store.read(["zoe"], history=1)
    counted = {"views": 1, "session_ms": 5, "sessions": 1}
    assert {name: getattr(zoe, name) for name in counted} == {**counted, counter: 2**53 + counted[counter]}


async def test_a_scan_returns_every_record_by_user_id(store):
    """A scan returns every record with its whole history, ordered by user id."""
    assert await scan_all(store) == [ANN, BOB, ODD]


async def test_one_record_is_that_of_a_scan(store):
    """The whole record of a user has the weights and times of the history and of avoided items."""
    await store.apply([interaction(1, user_id="ann", item_id="b", weight=-5.0)])
    (ann, *_) = await scan_all(store)
    assert [item.item_id for item in ann.avoided] == ["b"]
    assert [await store.record(user) for user in ("ann", "bob", ODD.user_id, "nobody")] == [ann, BOB, ODD, None]


async def test_closing_twice_is_allowed(store):
    """A store that is already closed can be closed again."""
    await store.aclose()
    await store.aclose()


async def test_a_closed_store_is_unavailable(store):
    """Every call of a closed store fails, and the store does not reopen."""
    await store.aclose()
    asks: list[Callable[[], Awaitable[object]]] = [
        lambda: store.read(["ann"], history=5),
        lambda: store.apply([interaction(1)]),
        store.population,
        lambda: store.replace([BOB], population=UNKNOWN_FEATURES),
        lambda: scan_all(store),
        lambda: store.record("ann"),
    ]
    for ask in asks:
        with pytest.raises(StoreUnavailableError):
            await ask()


async def test_a_store_can_be_closed_during_calls(opener):
    """A call in flight either completes or finds the store unavailable."""
    store = opener()
    await store.replace([BOB], population=UNKNOWN_FEATURES)
    asks = [store.read(["bob"], history=5), store.population(), *(store.apply([interaction(n)]) for n in range(3))]
    calls = [asyncio.ensure_future(ask) for ask in asks]
    await asyncio.sleep(0)
    await store.aclose()
    read, population, *applied = await asyncio.gather(*calls, return_exceptions=True)
    assert read == as_read(BOB) or isinstance(read, StoreUnavailableError)
    assert population == UNKNOWN_FEATURES or isinstance(population, StoreUnavailableError)
    assert all(told == [NEW] or isinstance(told, StoreUnavailableError) for told in applied)


def of_kind(kind: str) -> dict[str, object]:
    """Return the fields of an interaction that the demo's declaration gives to *kind*."""
    if kind == SESSION_END:
        return {"kind": kind, "weight": 0.0, "counter": "sessions"}
    declared = default_declaration().events[kind]
    return {"kind": kind, "weight": declared.weight, "counter": declared.counter}


def interaction(number: int, **changes: object) -> Interaction:
    fields: dict[str, object] = {
        "source": "//shop",
        "event_id": str(number),
        "user_id": "zoe",
        "time_us": 1_750_000_000_000_000 + number,
        "item_id": f"item_{number}",
        **of_kind(str(changes.get("kind", "view"))),
        **changes,
    }
    return Interaction(**fields)  # type: ignore[arg-type]


async def test_imported_weights_are_summed_exactly(store):
    """Weights in steps of 1/1024, as imports have them, are added to without rounding."""
    imported = [HistoryItem(f"item_{n}", (n * 7919 + 1) / 1024, 1) for n in range(50)]
    await store.replace([UserRecord("zoe", "55+", history=imported)], population=POPULATION)
    events = [interaction(n, item_id=f"item_{n % 50}", kind=("view", "click", "purchase")[n % 3]) for n in range(500)]
    random.Random(0).shuffle(events)
    await store.apply(events)
    added = {n: sum((1, 2, 5)[event % 3] for event in range(500) if event % 50 == n) for n in range(50)}
    (zoe,) = await scan_all(store)
    assert {item.item_id: item.weight for item in zoe.history} == {
        f"item_{n}": (n * 7919 + 1) / 1024 + added[n] for n in range(50)
    }


async def test_interactions_are_counted(store):
    """Each kind of event increments its counter and adds its weight to the item; the newest time is kept."""
    applied = await store.apply(
        [
            interaction(1, item_id="x", time_us=100),
            interaction(2, item_id="x", kind="purchase", time_us=300),
            interaction(3, item_id="y", kind="click", time_us=200),
            interaction(4, item_id=None, kind="session_end", time_us=400, duration_ms=61_500),
            interaction(5, item_id=None, kind="session_end", time_us=350),
        ]
    )
    assert applied == [NEW] * 5
    zoe = UserRecord(
        "zoe",
        "unknown",
        views=1,
        clicks=1,
        purchases=1,
        sessions=2,
        session_ms=61_500,
        as_of_us=400,
        history=[HistoryItem("x", 6.0, 300), HistoryItem("y", 2.0, 200)],
    )
    assert await store.read(["zoe"], history=10) == as_read(zoe)
    assert zoe in await scan_all(store)


async def test_interactions_add_to_imported_users(store):
    """Events of an imported user keep the profile and the history."""
    await store.apply([interaction(1, user_id="ann", item_id="a", kind="click", time_us=1_800_000_000_000_000)])
    ann = (await scan_all(store))[0]
    assert (ann.age_group, ann.clicks, ann.views) == ("25-34", 3, 3)
    assert ann.history[0] == HistoryItem("a", 4.0, 1_800_000_000_000_000)
    assert ann.as_of_us == 1_800_000_000_000_000


async def test_a_repeated_event_changes_nothing(store):
    """The pair (source, id) counts once, in one call or several; the same id from another source is another event."""
    first = interaction(1)
    assert await store.apply([first, first]) == [NEW, SEEN]
    before = await scan_all(store)
    assert await store.apply([first, interaction(1, kind="purchase")]) == [SEEN, SEEN]
    assert await scan_all(store) == before
    assert await store.apply([interaction(1, source="//app")]) == [NEW]


async def test_repeated_events_are_recognized_within_the_window(opener):
    """A repeated event changes nothing within the window and counts as a new event after it."""
    clock = Clock(1_800_000_000.0)
    store = opener(window_s=7 * 86_400.0, clock=clock)
    assert await store.apply([interaction(1)]) == [NEW]
    clock.now += 6.9 * 86_400
    assert await store.apply([interaction(1), interaction(2)]) == [SEEN, NEW]
    clock.now += 0.2 * 86_400
    assert await store.apply([interaction(1), interaction(2)]) == [NEW, SEEN]
    await store.aclose()


async def test_order_and_grouping_of_events_do_not_matter(opener):
    """The same events, shuffled, repeated and split differently, give the same state."""
    draw = random.Random(5)
    events = [
        interaction(
            number,
            user_id=draw.choice("abc"),
            kind=(kind := draw.choice(["view", "click", "purchase", "session_end"])),
            item_id=None if kind == "session_end" else draw.choice("xyz"),
            time_us=draw.randint(1, 10**15),
            duration_ms=draw.randint(0, 10**6) if kind == "session_end" else 0,
        )
        for number in range(60)
    ]
    states = []
    for size in (1, 7, 200):
        store = opener()
        await store.replace([], population=UNKNOWN_FEATURES)
        shuffled = draw.sample(events * 2, 120)
        told = [await store.apply(shuffled[start : start + size]) for start in range(0, 120, size)]
        assert sum(outcomes.count(NEW) for outcomes in told) == 60
        states.append(await scan_all(store))
        await store.aclose()
    assert states[0] == states[1] == states[2]
    assert len(states[0]) == 3


async def test_long_histories_are_complete(store):
    """A store keeps thousands of items per user; a read returns the newest, and a scan all of them."""
    long = UserRecord("long", "unknown", history=[HistoryItem(f"i{n:05}", 0.5, 10**15 - n) for n in range(9000)])
    await store.replace([long], population=UNKNOWN_FEATURES)
    assert await scan_all(store) == [long]
    (read,) = await store.read(["long"], history=1000)
    assert read == long.known(history=1000)


async def test_two_stores_see_each_others_writes(shared_opener):
    """An instance immediately reads the events that another one counted and recognizes repeats of them."""
    one, other = shared_opener(), shared_opener()
    assert await one.apply([interaction(1)]) == [NEW]
    (zoe,) = await other.read(["zoe"], history=10)
    assert zoe.views == 1
    assert await other.apply([interaction(1)]) == [SEEN]
    await one.replace([BOB], population=POPULATION)
    assert await other.read(["zoe", "bob"], history=10) == as_read(None, BOB)
    assert await other.population() == POPULATION
    assert await other.apply([interaction(9)]) == [NEW]
    (again,) = await one.read(["zoe"], history=10)
    assert again.views == 1
    await one.aclose()
    await other.aclose()


async def test_every_call_notices_a_replacement_by_another_instance(shared_opener):
    """No simultaneous call reads or changes the content from before the replacement."""
    async with aclosing(shared_opener()) as one, aclosing(shared_opener()) as other:
        await other.read(["bob"], history=10)
        await one.replace([BOB], population=POPULATION)
        assert await asyncio.gather(*(other.read(["bob"], history=10) for _ in range(3))) == [as_read(BOB)] * 3
        await one.replace([BOB], population=POPULATION)
        assert await asyncio.gather(*(other.apply([interaction(number)]) for number in range(3))) == [[NEW]] * 3
        (zoe,) = await one.read(["zoe"], history=10)
        assert zoe.views == 3
