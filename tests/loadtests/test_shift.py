"""A planted shift of tastes counts as served once new models' lists match the new tastes, and nothing was lost."""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import httpx
import pytest

from loadtests.people import People
from loadtests.shift import SEARCHES, Shifted, learned_until_in, versions_in, watch_shift
from loadtests.simulation import Audience
from recstore.exposures.records import Exposure, ShownItem
from recstore.exposures.urls import open_exposures
from recsys.client import AsyncClient
from tests.offline.tastes import fill, make_records, put_serving
from tools.cli.verbs import main

USERS = 20
ITEMS = {"a1": "red", "a2": "red", "b1": "blue", "b2": "blue"}
PEOPLE = People({f"user_{n}": "red" if n % 2 else "blue" for n in range(USERS)}, ITEMS, bias=0.0)
SHIFTED = PEOPLE.shifted()


class Pipeline:
    """
    A stand-in for recommend, the Broker and the exposure log, with one model after the other.

    Args:
        models: The version in each round, and the tastes that it knows. The last one stays.
        broken: The round in which all requests fail.
    """

    def __init__(self, *models: tuple[str, People], broken: int | None = None) -> None:
        self._models, self._broken, self._answers = models, broken, 0
        self.views: list[tuple[str, str]] = []

    @property
    def round(self) -> int:
        return self._answers // USERS

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if "ce-id" in request.headers:
            if "exposure_id" not in body:
                self.views.append((body["user_id"], body["item_id"]))
            return httpx.Response(202)
        number = self.round
        self._answers += 1
        if number == self._broken:
            return httpx.Response(400, json={"title": "no", "code": "no"})
        version, tastes = self._models[min(number, len(self._models) - 1)]
        liked = [item for item, category in ITEMS.items() if category == tastes.favourites[body["user_id"]]]
        shown = [{"item_id": item, "score": 1.0} for item in liked]
        headers = {"recsys-exposure": f"{version}-{self._answers}"}
        return httpx.Response(200, json={"user_id": body["user_id"], "recommendations": shown}, headers=headers)


async def versions(exposure_ids: Collection[str]) -> Mapping[str, int]:
    return Counter(exposure_id.partition("-")[0] for exposure_id in exposure_ids)


def learned_until(version: str) -> int:
    """Only versions that begin with v2 learned after any shift."""
    return sys.maxsize if version.startswith("v2") else 1


def watch(pipeline: Pipeline, *, within_s: float = 600) -> Shifted:
    async def go() -> Shifted:
        transport = httpx.MockTransport(pipeline)
        async with AsyncClient("http://recommend", events_url="http://broker", transport=transport) as client:
            audience = Audience(PEOPLE, client, top_k=2)
            return await watch_shift(
                audience, versions, learned_until, users=USERS, callers=4, within_s=within_s, say=print, round_s=0
            )

    return asyncio.run(go())


def test_the_wait_ends_with_the_first_round_of_a_model_that_knows_the_new_tastes():
    """A new model that knows the old tastes, and an old model that matches by chance, do not count."""
    found = watch(Pipeline(("v1", PEOPLE), ("v1", SHIFTED), ("v2", PEOPLE), ("v2", SHIFTED), ("v3", PEOPLE)))
    assert [(each.matching, dict(each.versions)) for each in (found.before, *found.rounds)] == [
        (1.0, {"v1": USERS}), (1.0, {"v1": USERS}), (0.0, {"v2": USERS}), (1.0, {"v2": USERS}),
    ]  # fmt: skip
    assert found.fault == ""
    assert found.served_s == found.rounds[-1].ended_s > 0
    assert "no request failed" in found.describe()
    assert found.facts()["lists_by_version"] == {"v1": 2 * USERS, "v2": 2 * USERS}


def test_views_show_the_present_taste():
    """In each round, each person views items of the taste at that time, which no list has to show."""
    pipeline = Pipeline(("v1", PEOPLE), ("v2", SHIFTED))
    watch(pipeline)
    seen = [(user_id, ITEMS[item_id]) for user_id, item_id in pipeline.views]
    assert set(seen[: SEARCHES * USERS]) == set(PEOPLE.favourites.items())
    assert set(seen[SEARCHES * USERS :]) == set(SHIFTED.favourites.items())


def test_a_shift_that_is_not_served_in_time_is_a_fault():
    """Without a round in time, the run says that the loop must run."""
    found = watch(Pipeline(("v1", PEOPLE)), within_s=0)
    assert found.served_s is None
    assert "./run.sh loop must run" in found.describe()


def test_failed_requests_are_a_fault_even_if_the_shift_is_served():
    """One failed round makes the run count as failed."""
    found = watch(Pipeline(("v1", PEOPLE), ("v1", PEOPLE), ("v2", SHIFTED), broken=1))
    assert (found.failed, found.served_s is None) == (USERS, False)
    assert found.fault.startswith(f"{USERS} requests failed")


@pytest.mark.may_block
def test_versions_come_from_the_exposure_log(tmp_path: Path):
    """Lists are counted by the version that the log has; other exposures do not count."""
    url = fill(tmp_path / "store.db", [])

    async def note_and_read() -> Mapping[str, int]:
        log = open_exposures(url)
        # The log forgets old entries.
        shown, now_us = (ShownItem("a1", 1),), time.time_ns() // 1000
        await log.note(
            [
                Exposure("one", "u", now_us, shown, "ials", "v1"),
                Exposure("two", "u", now_us, shown, "ials", "v2"),
                Exposure("three", "u", now_us, shown),
                Exposure("other", "u", now_us, shown, "ials", "v2"),
            ]
        )
        await log.aclose()
        return await versions_in(url)(["one", "two", "three"])

    assert asyncio.run(note_and_read()) == {"v1": 1, "v2": 1, "": 1}


def test_the_newest_event_of_a_model_is_in_its_manifest(tmp_path):
    """A model that the state directory does not have learned from no event."""
    records = make_records(days=2)
    learned_until = learned_until_in(put_serving(tmp_path, records))
    newest_us = max(item.time_us for record in records for item in record.history)
    assert [learned_until(version) for version in ("first", "other", "")] == [newest_us, 0, 0]


def test_a_shift_needs_the_log_of_this_machine(capsys):
    """The exposure log of a pipeline elsewhere cannot be read."""
    assert main(["simulate", "--shift", "--url", "http://127.0.0.1:9", "--events-url", "http://127.0.0.1:9"]) == 2
    assert "leave out --url" in capsys.readouterr().err
