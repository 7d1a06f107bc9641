"""Exposures keep an item as its id alone if the place in the list says the rest."""

from contextlib import aclosing
from pathlib import Path

import msgspec

from recstore.erasures import Erasure, digest_user
from recstore.exposures.join import join
from recstore.exposures.records import Action, Exposure, ShownItem
from recstore.exposures.sqlite import SqliteExposures
from recstore.port import EventOutcome
from recstore.sqlite import SqliteStore

# Newer than the retention for as long as this test may run.
TIME_US = 4_000_000_000_000_000


def shown(exposure_id: str, *items: str | ShownItem, user: str = "ann") -> Exposure:
    return Exposure(exposure_id, user, TIME_US, items)


def test_an_id_alone_has_its_place_and_no_draw():
    """An id alone stands for an item at its place with propensity 1; other items keep both."""
    assert shown("one", "lamp", ShownItem("sofa", 9, 0.5), "desk").shown() == [
        ShownItem("lamp", 1, 1.0),
        ShownItem("sofa", 9, 0.5),
        ShownItem("desk", 3, 1.0),
    ]


def test_both_forms_join_alike():
    """An exposure of ids alone joins like one that spells out each position."""
    actions = [Action("a", "ann", TIME_US + 1, "click", "sofa")]
    spelt = shown("one", ShownItem("lamp", 1), ShownItem("sofa", 2))
    assert join([shown("one", "lamp", "sofa")], actions, window_us=10) == join([spelt], actions, window_us=10)


def test_both_forms_are_read_from_json():
    """A log reads items in both forms, also mixed."""
    exposure = shown("one", "lamp", ShownItem("sofa", 2, 0.5))
    assert msgspec.json.decode(msgspec.json.encode(exposure), type=Exposure) == exposure


async def test_one_refused_entry_does_not_stop_the_others(tmp_path: Path):
    """Of one call, new entries are kept once, and repeated ones and those of erased users are told apart."""
    path = tmp_path / "store.db"
    async with aclosing(SqliteStore(path, create=True)) as store, aclosing(SqliteExposures(path)) as log:
        await store.adopt([Erasure(digest_user("bob"), 1)])
        await log.note([shown("one", "lamp")])
        entries = [shown("two", "lamp"), shown("one", "lamp"), shown("one", "lamp", user="bob"), shown("six", "sofa")]
        outcomes = [EventOutcome.ACCEPTED, EventOutcome.REPEATED, EventOutcome.ERASED, EventOutcome.ACCEPTED]
        assert await log.note(entries) == outcomes
        assert sorted([each.exposure_id async for each in log.scan()]) == ["one", "six", "two"]
