"""One suite that every catalogue passes."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from offline.catalogue import carry_over, put_entries, read_entries
from recrank.artefact import Item
from recstore.catalogue.entries import REMOVED, Catalogue, Entry, describe
from recstore.catalogue.memory import MemoryCatalogue
from recstore.catalogue.urls import open_catalogue
from recstore.port import StoreMissingError, StoreUnavailableError
from recstore.urls import open_store, sqlite_url
from recsys.features import UNKNOWN_FEATURES
from recsys.records import UserRecord

LAMP = Item("lamp", 'A "lamp"', {"category": ("Home", "Light"), "brand": ("Ω|acme",)})


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Catalogue]:
    """Return a function that opens the same catalogue."""
    if request.param == "memory":
        catalogue = MemoryCatalogue()
        return lambda: catalogue
    url = f"sqlite:///{tmp_path}/store.db"
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        server.flush()
        url = server.url
    async with aclosing(open_store(url, create=True)) as store:
        await store.replace([UserRecord("ann", "55+")], population=UNKNOWN_FEATURES)
    return lambda: open_catalogue(url)


@pytest.fixture
async def catalogue(opener: Callable[[], Catalogue]) -> AsyncIterator[Catalogue]:
    async with aclosing(opener()) as opened:
        yield opened


async def test_changes_are_read_after_a_revision(catalogue):
    """A reader gets each changed item once, in its newest state, and nothing without changes."""
    assert await catalogue.read(after=0) == (0, [])
    assert await catalogue.put([describe(LAMP, at_us=5), Entry("desk", available=False, available_us=7)]) == [
        True,
        True,
    ]
    revision, entries = await catalogue.read(after=0)
    assert {each.item_id: each.item() for each in entries} == {"lamp": LAMP, "desk": None}
    assert [each.is_offered for each in sorted(entries, key=str)] == [False, True]
    assert await catalogue.read(after=revision) == (revision, [])
    assert await catalogue.put([Entry("lamp", available=False, available_us=9)]) == [True]
    later, (lamp,) = await catalogue.read(after=revision)
    assert later > revision
    assert (lamp.item(), lamp.is_offered) == (LAMP, False)


async def test_the_newer_part_counts(catalogue):
    """An older or repeated change does nothing; description and availability are independent."""
    await catalogue.put([describe(LAMP, at_us=5), Entry("lamp", available=False, available_us=3)])
    assert await catalogue.put([describe(LAMP, at_us=5), Entry("lamp", REMOVED, 4)]) == [False, False]
    assert await catalogue.put([Entry("lamp", available=True, available_us=2)]) == [False]
    assert await catalogue.put([Entry("lamp", REMOVED, 6)]) == [True]
    _, (lamp,) = await catalogue.read(after=0)
    assert lamp == Entry("lamp", REMOVED, 6, available=False, available_us=3)


async def test_the_order_of_changes_does_not_matter(opener):
    """The same changes in any order, repeated and grouped differently, give the entries that `merge` gives."""
    draw = random.Random(3)
    changes = [
        draw.choice(
            [
                describe(Item(item, draw.choice("xyz")), at_us=draw.randint(1, 9)),
                Entry(item, REMOVED, draw.randint(1, 9)),
                Entry(item, available=draw.random() < 0.5, available_us=draw.randint(1, 9)),
            ]
        )
        for item in draw.choices("abc", k=60)
    ]
    merged: dict[str, Entry] = {}
    for change in changes:
        merged[change.item_id] = merged.get(change.item_id, Entry(change.item_id)).merge(change)
    shuffled = draw.sample(changes * 2, 120)
    async with aclosing(opener()) as one, aclosing(opener()) as other:
        await asyncio.gather(one.put(shuffled[:50]), other.put(shuffled[50:]))
        for reader in (one, other):
            _, entries = await reader.read(after=0)
            assert {each.item_id: each for each in entries} == merged


async def test_a_replacement_of_the_users_keeps_the_catalogue(tmp_path, redis_server):
    """An import of users into the same store does not change items."""
    redis_server.flush()
    for url in (f"sqlite:///{tmp_path}/store.db", redis_server.url):
        async with aclosing(open_store(url, create=True)) as store:
            async with aclosing(open_catalogue(url)) as catalogue:
                await catalogue.put([describe(LAMP, at_us=5)])
                await store.replace([UserRecord("ann", "55+")], population=UNKNOWN_FEATURES)
                assert len((await catalogue.read(after=0))[1]) == 1
            with pytest.raises(StoreUnavailableError):
                await catalogue.read(after=0)


async def test_many_items_are_complete(catalogue):
    """Thousands of entries go through one call."""
    entries = [describe(Item(f"i{number}", "t"), at_us=number) for number in range(2500)]
    assert all(await catalogue.put(entries))
    _, found = await catalogue.read(after=0)
    assert sorted(found, key=lambda entry: entry.described_us) == entries


def test_a_missing_store_has_no_catalogue(tmp_path):
    """Opening the catalogue makes no file."""
    with pytest.raises(StoreMissingError):
        open_catalogue(f"sqlite:///{tmp_path}/none.db")


def stored(path: Path) -> Path:
    """Make a store at *path*, whose catalogue has a lamp."""

    async def fill() -> None:
        async with aclosing(open_store(sqlite_url(path), create=True)) as store:
            await store.replace([UserRecord("ann", "55+")], population=UNKNOWN_FEATURES)
        await put_entries(sqlite_url(path), [describe(LAMP, at_us=5)])

    asyncio.run(fill())
    return path


@pytest.mark.may_block
def test_a_store_that_cannot_be_read_is_not_carried_over_and_a_target_must_be_writable(tmp_path: Path) -> None:
    """Changes of the catalogue never get lost without an error."""
    source, target = stored(tmp_path / "1.db"), stored(tmp_path / "2.db")
    asyncio.run(put_entries(sqlite_url(source), [Entry("desk", available=False, available_us=7)]))
    carry_over([tmp_path / "none.db", source], target, imported=())
    assert set(asyncio.run(read_entries(sqlite_url(target)))) == {"lamp", "desk"}
    with pytest.raises(StoreMissingError):
        carry_over([source], tmp_path / "none.db", imported=())
