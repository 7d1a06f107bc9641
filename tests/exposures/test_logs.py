"""One suite that the exposure logs of all kinds pass."""

import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from recstore.erasures import Erasure, Removed, digest_user
from recstore.exposures.join import join
from recstore.exposures.log import ExposureLog
from recstore.exposures.records import Action, Entry, Exposure, ExposureOutcome, ShownItem
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


async def test_a_file_of_version_4_is_taken_over(tmp_path):
    """A file whose exposures have the user first keeps them, and knows them as repeated."""
    place = Place(f"sqlite:///{tmp_path}/store.db")
    entries: list[Entry] = [shown("two"), shown("one", user="bob"), shown("one"), did("a")]
    async with aclosing(open_store(place.url, create=True)), aclosing(place.log()) as log:
        await log.note(entries)
        before = await read(log)
    with sqlite3.connect(tmp_path / "store.db") as old:
        (made,) = old.execute("SELECT sql FROM sqlite_schema WHERE name = 'exposures'").fetchone()
        old.executescript(f"""
            ALTER TABLE exposures RENAME TO newer;
            {made.replace("(key, user)", "(user, key)")};
            INSERT INTO exposures SELECT * FROM newer;
            DROP TABLE newer;
            PRAGMA user_version = 4;
        """)
    old.close()
    async with aclosing(place.log()) as log:
        assert await log.note(entries) == [EventOutcome.REPEATED] * 4
        assert await read(log) == before
    with sqlite3.connect(tmp_path / "store.db") as new:
        assert new.execute("SELECT sql FROM sqlite_schema WHERE name = 'exposures'").fetchone() == (made,)
    new.close()
