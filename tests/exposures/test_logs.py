"""One suite that the exposure logs of all kinds pass."""

import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from recstore.erasures import Erasure, Removed, digest_user, hash_user
from recstore.exposures.join import join
from recstore.exposures.log import ExposureLog
from recstore.exposures.records import Action, Entry, Exposure, ExposureGroup, ExposureOutcome, ShownItem
from recstore.exposures.redis import RedisExposures
from recstore.exposures.sqlite import SqliteExposures
from recstore.exposures.urls import open_exposures
from recstore.port import EventOutcome, StoreFormatError, StoreMissingError, StoreUnavailableError
from recstore.urls import open_store
from recsys.features import UNKNOWN_FEATURES
from recsys.records import UserRecord

NOW_S = 1_800_000_000.0
SECOND_US = 1_000_000
NOW_US = int(NOW_S) * SECOND_US
DAY_US = 86_400 * SECOND_US


class Place:
    """A feature store, and its exposure log as several instances open it."""

    def __init__(self, url: str) -> None:
        self.url, self.now_s = url, NOW_S

    def log(self, **options: Any) -> ExposureLog:
        clock: dict[str, Any] = {"clock": lambda: self.now_s}
        if self.url.startswith("sqlite"):
            return SqliteExposures(Path(self.url.removeprefix("sqlite:///")), **clock, **options)
        return RedisExposures(self.url, **clock, **options)

    async def erase(self, *erasures: Erasure) -> Removed:
        async with aclosing(open_store(self.url)) as store:
            return await store.adopt(erasures)


@pytest.fixture
async def place(empty_store_url: str) -> Place:
    """Return the place of a store that holds one user."""
    async with aclosing(open_store(empty_store_url, create=True)) as store:
        await store.replace([UserRecord("ann", "55+")], population=UNKNOWN_FEATURES)
    return Place(empty_store_url)


@pytest.fixture
async def log(place: Place) -> AsyncIterator[ExposureLog]:
    async with aclosing(place.log()) as opened:
        yield opened


def shown(exposure_id: str, time_us: int = NOW_US, *, user: str = "ann", items: Sequence[str] = ("lamp",)) -> Exposure:
    listed = tuple(ShownItem(item, place, 0.5) for place, item in enumerate(items, 1))
    return Exposure(exposure_id, user, time_us, listed, "ials", "abc", "colours", "red")


def did(event: str, time_us: int = NOW_US, *, user: str = "ann", item: str = "lamp", exposure_id: str = "") -> Action:
    return Action(event, user, time_us, "click", item, exposure_id)


async def read(log: ExposureLog) -> list[ExposureOutcome]:
    return sorted([each async for each in log.scan()], key=lambda each: (each.user_id, each.time_us, each.exposure_id))


async def test_an_action_joins_its_exposure(log):
    """An exposure is read back as it was noted, with its action, even if the action arrives first."""
    assert await log.note([did("a", exposure_id="one")]) == [EventOutcome.ACCEPTED]
    assert await read(log) == []
    assert await log.note([shown("one"), did("b", NOW_US + 5, item="sofa")]) == [EventOutcome.ACCEPTED] * 2
    assert await read(log) == join([shown("one")], [did("a", exposure_id="one")], window_us=DAY_US)


async def test_a_repeated_entry_counts_once(log):
    """The same entry in one call, or in a later one, is repeated; users may share an id."""
    entries: list[Entry] = [shown("one"), did("a"), shown("one", user="bob")]
    assert await log.note([*entries, entries[0]]) == [EventOutcome.ACCEPTED] * 3 + [EventOutcome.REPEATED]
    assert await log.note(entries) == [EventOutcome.REPEATED] * 3
    assert [(each.user_id, each.items[0].outcomes) for each in await read(log)] == [("ann", ("click",)), ("bob", ())]


async def test_ids_with_slashes_stay_apart(log):
    """Two answers whose user and id give the same text together are both kept."""
    assert await log.note([shown("c", user="a/b"), shown("b/c", user="a")]) == [EventOutcome.ACCEPTED] * 2


async def test_shuffled_and_repeated_entries_of_several_instances_give_the_join(place):
    """Instances that share the entries, in any order and partly twice, end with the join of the distinct ones."""
    draw = random.Random(5)
    users = [f"user_{number}" for number in range(6)]
    exposures = [
        shown(f"x{number}", NOW_US - draw.randrange(DAY_US), user=draw.choice(users), items=draw.sample("abcdef", 3))
        for number in range(60)
    ]
    actions = [
        did(
            f"{number:032x}",
            NOW_US - draw.randrange(DAY_US),
            user=draw.choice(users),
            item=draw.choice("abcdef"),
            exposure_id=draw.choice(["", f"x{draw.randrange(60)}"]),
        )
        for number in range(200)
    ]
    deliveries: list[Entry] = [*exposures, *actions, *draw.sample(exposures, 20), *draw.sample(actions, 70)]
    draw.shuffle(deliveries)
    async with aclosing(place.log()) as one, aclosing(place.log()) as other:
        for start in range(0, len(deliveries), 25):
            await draw.choice([one, other]).note(deliveries[start : start + 25])
        found = await read(one)
    expected = [
        each
        for user in users
        for each in join(
            [one for one in exposures if one.user_id == user],
            [act for act in actions if act.user_id == user],
            window_us=DAY_US,
        )
    ]
    assert found == expected
    assert any(item.outcomes for each in found for item in each.items)


async def test_an_erasure_removes_and_refuses(place, log):
    """The store's erasure removes the entries of the user alone and counts them; later entries are refused."""
    await log.note([shown("one"), shown("two"), did("a"), shown("other", user="bob"), did("b", user="bob")])
    removed = await place.erase(Erasure(digest_user("ann"), NOW_US))
    assert (removed.exposures, removed.actions) == (2, 1)
    assert await log.note([shown("one"), shown("late", NOW_US + DAY_US), did("a")]) == [EventOutcome.ERASED] * 3
    assert [each.exposure_id for each in await read(log)] == ["other"]
    assert await place.erase(Erasure(digest_user("ann"), NOW_US)) == Removed()


async def test_a_readmitted_user_is_logged_from_then_on(place, log):
    """After a readmission, entries before it are still refused, and later ones are kept."""
    await place.erase(Erasure(digest_user("ann"), NOW_US))
    await place.erase(Erasure(digest_user("ann"), NOW_US + 10, readmitted=True))
    entries = [shown("before", NOW_US + 9), shown("after", NOW_US + 10), did("a", NOW_US + 11)]
    assert await log.note(entries) == [EventOutcome.ERASED, EventOutcome.ACCEPTED, EventOutcome.ACCEPTED]
    assert [each.exposure_id for each in await read(log)] == ["after"]


async def test_a_user_whom_the_store_does_not_know_is_erased_too(place, log):
    """Exposures of a user without a record are removed by the erasure."""
    await log.note([shown("one", user="eve")])
    assert (await place.erase(Erasure(digest_user("eve"), NOW_US))).exposures == 1
    assert await read(log) == []


async def test_entries_older_than_the_retention_are_forgotten(place):
    """The next note after the retention deletes old entries; repeating them does not bring back their join."""
    async with aclosing(place.log(retention_s=3600)) as log:
        await log.note([shown("old"), did("a")])
        place.now_s += 3700
        await log.note([shown("new", NOW_US + 3700 * SECOND_US), did("b", NOW_US + 3700 * SECOND_US)])
        assert [each.exposure_id for each in await read(log)] == ["new"]


async def test_the_newest_entries_of_a_user_are_kept(place):
    """The log keeps the newest exposures of a user with many, in any order of arrival; other users keep theirs."""
    async with aclosing(place.log(most_per_user=3)) as log:
        await log.note([shown("theirs", NOW_US - 50, user="bob")])
        for number in [5, 1, 4, 2, 3, 0]:
            place.now_s += 61
            await log.note([shown(f"x{number}", NOW_US + number), did(f"{number}", NOW_US + number)])
        assert [each.exposure_id for each in await read(log)] == ["x3", "x4", "x5", "theirs"]


async def test_a_replacement_of_the_store_leaves_the_log(place, log):
    """Filling the store again, as an import does, keeps exposures and actions."""
    await log.note([shown("one"), did("a")])
    async with aclosing(open_store(place.url)) as store:
        await store.replace([UserRecord("ann", "55+")], population=UNKNOWN_FEATURES)
    assert [each.items[0].outcomes for each in await read(log)] == [("click",)]


async def test_a_closed_log_refuses_calls(place):
    """A closed log raises, and may be closed again."""
    log = place.log()
    await log.aclose()
    with pytest.raises(StoreUnavailableError):
        await log.note([shown("one")])
    await log.aclose()


async def test_the_url_names_the_log(place, tmp_path):
    """The log of a store's URL is that of the store; a missing store and one in memory are refused."""
    open_: Callable[[str], ExposureLog] = open_exposures
    async with aclosing(open_(place.url)) as log:
        await log.note([shown("one")])
    async with aclosing(place.log()) as log:
        assert len(await read(log)) == 1
    with pytest.raises(StoreMissingError):
        open_(f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(StoreFormatError, match="memory"):
        open_("memory:")


@pytest.mark.parametrize(("version", "index"), [(4, "user, key"), (5, "key, user")])
async def test_a_file_with_a_row_for_each_exposure_is_taken_over(tmp_path, version, index):
    """A file of a former version keeps its exposures, and knows them as repeated."""
    place = Place(f"sqlite:///{tmp_path}/store.db")
    exposures = [
        shown("two"),
        shown("one", user='bob "q" é', items=["sofa", "lamp"]),
        Exposure("one", "ann", NOW_US, ("lamp", ShownItem("sofa", 3, 0.25)), took_us=7, failed=True),
    ]
    entries: list[Entry] = [*exposures, did("a")]
    async with aclosing(open_store(place.url, create=True)), aclosing(place.log()) as log:
        await log.note(entries)
        before = await read(log)
    with sqlite3.connect(tmp_path / "store.db") as old:
        old.executescript(f"""
            DROP TABLE exposures;
            CREATE TABLE exposures (
                user BLOB NOT NULL, key TEXT NOT NULL, time_us INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY ({index})
            ) STRICT;
            PRAGMA user_version = {version};
        """)
        rows = [
            (hash_user(each.user_id), each.exposure_id, each.time_us, msgspec.json.encode(each).decode())
            for each in exposures
        ]
        old.executemany("INSERT INTO exposures VALUES (?, ?, ?, ?)", rows)
    old.close()
    async with aclosing(place.log()) as log:
        assert await log.note(entries) == [EventOutcome.REPEATED] * 4
        assert await read(log) == before
    assert len(before) == 3


def grouped(key: str, *exposures: Exposure) -> ExposureGroup:
    """Return *exposures* as the group of one event."""
    alone = [ExposureGroup.of(each) for each in exposures]
    return ExposureGroup(
        key,
        [each.user_id for each in exposures],
        [each.exposure_id for each in exposures],
        [each.time_us for each in exposures],
        [each.items for each in exposures],
        [each.took_us for each in exposures],
        [each.origins[0] for each in alone],
        list(range(len(alone))),
    )


async def test_a_group_is_read_as_its_answers(log):
    """The answers of an event are joined like answers alone; the same event changes nothing."""
    exposures = [shown("one"), shown("two", NOW_US + 1, user="bob"), shown("three", NOW_US + 2, items=["sofa", "lamp"])]
    assert await log.note([grouped("e", *exposures), did("a", NOW_US + 3)]) == [EventOutcome.ACCEPTED] * 4
    assert await log.note([grouped("e", *exposures)]) == [EventOutcome.REPEATED] * 3
    mine, theirs = [exposures[0], exposures[2]], [exposures[1]]
    assert await read(log) == [
        *join(mine, [did("a", NOW_US + 3)], window_us=DAY_US),
        *join(theirs, [], window_us=DAY_US),
    ]


async def test_a_group_of_many_answers_is_kept_once(place, log):
    """A group that takes several rows is read completely, known as repeated, and loses answers of erased users anywhere."""
    many = [shown(f"x{number:04}", NOW_US + number, user="ann" if number % 100 else "bob") for number in range(900)]
    for outcome in (EventOutcome.ACCEPTED, EventOutcome.REPEATED):
        assert await log.note([grouped("e", *many)]) == [outcome] * 900
    assert [each.exposure_id for each in await read(log)] == [
        *(each.exposure_id for each in many if each.user_id == "ann"),
        *(each.exposure_id for each in many if each.user_id == "bob"),
    ]
    assert (await place.erase(Erasure(digest_user("bob"), NOW_US + 5000))).exposures == 9
    assert len(await read(log)) == 891


async def test_an_answer_of_several_groups_counts_once(log):
    """An exposure that two events report is read once, as it was reported first."""
    await log.note([grouped("e", shown("one"), shown("two"))])
    await log.note([grouped("f", shown("one", items=["other"]), shown("three"))])
    found = await read(log)
    assert [(each.exposure_id, each.items[0].item_id) for each in found] == [
        ("one", "lamp"),
        ("three", "lamp"),
        ("two", "lamp"),
    ]


async def test_an_erasure_takes_a_users_answers_from_groups(place, log):
    """Groups lose the answers of the erased user, keep the others, and take no later ones of the user."""
    await log.note([grouped("e", shown("one"), shown("b1", user="bob"), shown("two")), grouped("f", shown("three"))])
    await log.note([grouped("g", shown("b2", user="bob"), shown("c", user="ann2"))])
    assert (await place.erase(Erasure(digest_user("ann"), NOW_US))).exposures == 3
    late = grouped("h", shown("late", NOW_US + 9), shown("b3", user="bob"))
    assert await log.note([late]) == [EventOutcome.ERASED, EventOutcome.ACCEPTED]
    assert await log.note([late]) == [EventOutcome.ERASED, EventOutcome.REPEATED]
    assert [each.exposure_id for each in await read(log)] == ["c", "b1", "b2", "b3"]


async def test_the_newest_answers_of_a_user_in_groups_are_kept(place):
    """The limit of a user counts across groups; a group that becomes empty disappears."""
    async with aclosing(place.log(most_per_user=2)) as log:
        await log.note([grouped("e", shown("x0", NOW_US), shown("b", user="bob"), shown("x2", NOW_US + 2))])
        await log.note([grouped("f", shown("x1", NOW_US + 1))])
        place.now_s += 61
        await log.note([grouped("g", shown("x3", NOW_US + 3))])
        assert [each.exposure_id for each in await read(log)] == ["x2", "x3", "b"]


async def test_a_damaged_group_is_named(tmp_path):
    """A row whose columns differ in length raises the port's error, which names the file."""
    place = Place(f"sqlite:///{tmp_path}/store.db")
    async with aclosing(open_store(place.url, create=True)), aclosing(place.log()) as log:
        await log.note([grouped("e", shown("one"), shown("two"))])
        with sqlite3.connect(tmp_path / "store.db") as file:
            file.execute("UPDATE exposures SET users = '[]'")
        file.close()
        with pytest.raises(StoreFormatError, match=r"store\.db.*'e' are damaged"):
            await read(log)
