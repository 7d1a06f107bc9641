"""The shadow: copies of calls to rank_items for a candidate, whose lists are compared and never served."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import TypeVar

import msgspec
import pytest

from chassis.call import Call, Deadline
from chassis.hop.client import HopAnswer
from chassis.receipt import Receipt
from chassis.wire.problems import DependencyError, ServingError
from functions.recommend import shadow
from functions.recommend.hops import RankCall, Ranked, RankingClient
from functions.recommend.settings import Settings
from functions.recommend.shadow import MOST_IN_FLIGHT, Shadow
from tests.waiting import until

T = TypeVar("T")


class Ranker:
    """A rank_items that answers with a list of items, fails, or waits until it is released."""

    def __init__(self, item_ids: Iterable[str] = (), *, error: ServingError | None = None, waits: bool = False) -> None:
        self.bodies: list[bytes] = []
        self.calls: list[Call] = []
        self.released = asyncio.Event()
        if not waits:
            self.released.set()
        self._answer = [{"item_id": item_id, "score": 1.0} for item_id in item_ids]
        self._error = error

    async def send(self, body: bytes, *, call: Call, within_s: float, decode: Callable[[bytes], T]) -> HopAnswer[T]:
        self.bodies.append(body)
        self.calls.append(call)
        await self.released.wait()
        if self._error:
            raise self._error
        return HopAnswer(decode(msgspec.json.encode({"items": self._answer, "model": {"name": "m", "version": "1"}})))


def make_call() -> Call:
    return Call(b"", [], "id", Receipt(0.0), Deadline.after(5))


ONE = RankCall(msgspec.Raw(b"{}"), msgspec.Raw(b"[]"), 5)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "_LATER_S", 0.0)


async def rank(hop: Shadow, times: int = 1) -> list[str]:
    answers = [await RankingClient(hop).rank([ONE], call=make_call(), within_s=1) for _ in range(times)]
    (outcome,) = answers[-1].value
    assert isinstance(outcome, Ranked)
    return [item["item_id"] for item in msgspec.json.decode(outcome.items)]


def figures(hop: Shadow) -> dict[str, float]:
    """Return the sums and counts of the shadow's metrics."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for instrument in hop.instruments()
        for sample in instrument.collect().samples
        if "le" not in sample.labels
    }


async def test_the_served_list_is_compared_with_the_candidates():
    """The caller gets the serving list; overlap and order of the two lists are counted."""
    candidate = Ranker(["b", "a", "x", "y"])
    hop = Shadow(Ranker(["a", "b", "c", "d"]), candidate, share=1.0)
    assert await rank(hop) == ["a", "b", "c", "d"]
    await until(lambda: hop.outcomes["compared"] == 1)
    found = figures(hop)
    assert found["recsys_shadow_overlap_ratio_sum"] == 0.5
    assert (found["recsys_shadow_order_ratio_sum"], found["recsys_shadow_order_ratio_count"]) == (0.0, 1.0)
    assert found["recsys_shadow_calls_total compared"] == 1


async def test_the_copy_is_not_part_of_the_callers_request():
    """The copy has the same body and request id, and its own deadline and receipt."""
    serving, candidate = Ranker("ab"), Ranker("ab")
    hop = Shadow(serving, candidate, share=1.0)
    await rank(hop)
    await until(lambda: hop.outcomes["compared"] == 1)
    assert candidate.bodies == serving.bodies
    (copied,), (own,) = candidate.calls, serving.calls
    assert copied.request_id == own.request_id
    assert copied.receipt is not own.receipt
    assert copied.deadline.at > own.deadline.at - 5


async def test_only_the_share_is_copied():
    """A call is copied if its draw is below the share."""
    draws = iter([0.04, 0.05, 0.06, 0.01])
    candidate = Ranker("a")
    hop = Shadow(Ranker("a"), candidate, share=0.05, draw=lambda: next(draws))
    await rank(hop, 4)
    await until(lambda: hop.outcomes["compared"] == 2)
    assert len(candidate.bodies) == 2


async def test_a_failing_candidate_costs_nothing():
    """The caller gets its list, and the failure is counted."""
    hop = Shadow(Ranker("ab"), Ranker(error=DependencyError("no")), share=1.0)
    assert await rank(hop, 3) == ["a", "b"]
    await until(lambda: hop.outcomes["failed"] == 3)


async def test_a_hanging_candidate_gets_a_limited_number_of_copies():
    """More copies than the limit are dropped, callers are served, and closing cancels the copies in flight."""
    candidate = Ranker("ab", waits=True)
    async with aclosing(Shadow(Ranker("ab"), candidate, share=1.0)) as hop:
        assert await rank(hop, MOST_IN_FLIGHT + 5) == ["a", "b"]
        assert hop.outcomes["dropped"] == 5
        await until(lambda: len(candidate.bodies) == MOST_IN_FLIGHT)
    assert hop.outcomes["compared"] == hop.outcomes["failed"] == 0


async def test_failures_of_the_serving_hop_are_not_copied():
    """A call that rank_items does not answer has nothing to compare."""
    candidate = Ranker("a")
    hop = Shadow(Ranker(error=DependencyError("no")), candidate, share=1.0)
    with pytest.raises(DependencyError):
        await rank(hop)
    await asyncio.sleep(0)
    assert candidate.bodies == []


def test_a_request_without_a_list_is_not_compared():
    """A problem in place of a list counts in neither measure."""
    hop = Shadow(Ranker(), Ranker(), share=1.0)
    hop.compare_lists(Ranked(error=msgspec.Raw(b"{}")), Ranked(items=msgspec.Raw(b"[]")))
    hop.compare_lists(Ranked(items=msgspec.Raw(b"[]")), Ranked(items=msgspec.Raw(b"[]")))
    assert not any(name.startswith("recsys_shadow_overlap") for name in figures(hop))


ADDRESSES = {"AUTH": "off", "EXTRACT_FEATURES_URL": "http://a", "RANK_ITEMS_URL": "http://b"}


def test_the_settings_name_the_candidate():
    """Without an address nothing is copied."""
    assert Settings.from_env(ADDRESSES).shadow is None
    found = Settings.from_env({**ADDRESSES, "SHADOW_RANK_ITEMS_URL": "http://c", "SHADOW_SHARE": "0.5"}).shadow
    assert found is not None
    assert (found.url, found.share) == ("http://c", 0.5)
