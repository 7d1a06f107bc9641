"""The popular list, which recommend returns when it cannot rank."""

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import pytest

from chassis.call import Call
from chassis.hop.client import HopAnswer
from chassis.wire.problems import DependencyError
from functions.recommend.handler import Recommend
from functions.recommend.hops import RankingClient
from functions.recommend.popular import PopularList
from functions.recommend.settings import PopularSettings
from recsys.contracts.wire import RankedItem
from tests.functions.harness import DOWN, FEATURES, POPULAR, RANKED, FakeHop, make_call, make_recommender
from tests.virtual_time import on_virtual_time
from tests.waiting import until

T = TypeVar("T")


async def test_the_popular_list_is_fetched_in_pages_and_saved(tmp_path):
    """Each page excludes the items already fetched, and the next process reads the saved list."""
    pages = [[{"item_id": f"{page}-{n}", "score": 0.5} for n in range(100)] for page in range(2)]
    hop = FakeHop({"items": pages[0]}, {"items": pages[1]}, {"items": []})
    path = tmp_path / "popular.json"
    await PopularList(RankingClient(hop), PopularSettings(path, 60)).warm()
    assert [len(sent["exclude"]) for sent in hop.sent] == [0, 100, 200]
    revived = PopularList(RankingClient(FakeHop(DOWN)), PopularSettings(path, 60))
    await revived.warm()
    assert [item.item_id for item in revived.pick(["0-0"], 2)] == ["0-1", "0-2"]
    assert len(revived.pick((), 1000)) == 200


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'[{"item_id":1}]'])
async def test_a_damaged_list_is_ignored(tmp_path, content, caplog):
    """A list that cannot be read is logged and ignored."""
    path = tmp_path / "popular.json"
    path.write_bytes(content)
    listed = PopularList(RankingClient(FakeHop(DOWN)), PopularSettings(path, 60))
    await listed.warm()
    assert listed.pick((), 5) == []
    assert [record.message for record in caplog.records] == ["popular_list_unreadable"]


async def test_a_list_that_cannot_be_saved_is_still_used(caplog):
    """A file that cannot be written causes a warning, and the list is still used."""
    listed = PopularList(RankingClient(FakeHop({"items": POPULAR})), PopularSettings(Path("/nowhere/popular.json"), 60))
    await listed.warm()
    assert listed.pick((), 1) == [RankedItem("a", 0.9)]
    assert [record.message for record in caplog.records] == ["popular_list_not_kept"]


async def test_an_invalid_answer_does_not_replace_the_list():
    """An answer that is not a list of items leaves the current list unchanged."""
    listed = PopularList(RankingClient(FakeHop({"items": POPULAR}, {"items": 7})), PopularSettings(None, 60))
    await listed.refresh()
    with pytest.raises(DependencyError):
        await listed.refresh()
    assert len(listed.pick((), 10)) == 6


async def test_the_list_is_refreshed_periodically(monkeypatch):
    """Refreshing continues after successes and after failures, also unexpected ones, until it is cancelled."""
    for pause in ("functions.recommend.popular._AFTER_FAILURE_S", "chassis.background._AFTER_ERROR_S"):
        monkeypatch.setattr(pause, 0.001)
    hop = FakeHop(DOWN, ValueError("unexpected"), {"items": POPULAR})
    listed = PopularList(RankingClient(hop), PopularSettings(None, 0.001))

    def has_fetched(times: int) -> bool:
        listed.note_request()
        return len(hop.sent) >= times

    async with listed.kept_fresh():
        await until(partial(has_fetched, 6))
    assert len(listed.pick((), 10)) == 6


@on_virtual_time
@pytest.mark.parametrize("in_use", [True, False])
async def test_the_list_is_refreshed_only_together_with_a_request(clock, in_use):
    """A refresh accompanies a request, and never follows later: rank_items could not scale to zero otherwise."""
    hop = FakeHop({"items": POPULAR})
    listed = PopularList(RankingClient(hop), PopularSettings(None, 30.0))
    handler = Recommend(make_recommender(FakeHop(FEATURES), FakeHop(RANKED), popular=listed))
    async with listed.kept_fresh():
        await handler(make_call({"user_id": "ann"}))
        await clock.advance(31)
        sent = [len(hop.sent)]
        for _ in range(20):
            if in_use:
                await handler(make_call({"user_id": "ann"}))
            await clock.advance(0.001)
            sent.append(len(hop.sent))
            await clock.advance(31)
            assert len(hop.sent) == sent[-1]
    assert [after - before for before, after in pairwise(sent)] == [in_use] * 20


class SilentHop:
    """A hop that is being started and does not answer yet."""

    async def send(self, body: bytes, *, call: Call, within_s: float, decode: Callable[[bytes], T]) -> HopAnswer[T]:
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_recommend_that_wakes_others_is_ready_before_it_knows_the_list():
    """Its start does not wait for rank_items, which starts at the same time."""
    async with PopularList(RankingClient(SilentHop()), PopularSettings(None, 60)).kept_fresh(waits=False) as ready:
        assert ready is None
