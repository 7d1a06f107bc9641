import asyncio
import gc
import json
import math
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.batching.batcher import Batcher
from chassis.batching.bulk import MAX_LARGE_WAITING, BulkSubmitter
from chassis.batching.queue import BatchLimits
from chassis.call import Call, Deadline
from chassis.receipt import Receipt
from chassis.wire.problems import DeadlineExceededError, InvalidRequestError, OverloadedError, ServingError
from functions.rank_items.handler import RankItems
from recrank.filters import ItemAttributes
from recrank.model import Query, Ranking
from recsys.contracts.wire import Model
from tests.waiting import LIMIT_S, until

NEVER = math.inf
LIMITS = BatchLimits(max_batch_size=4, max_queue_size=32)

R = TypeVar("R")


class HeldBatcher:
    """A batcher whose batches take one second of a fake clock and end only when the test releases them."""

    def __init__(self, executor: ThreadPoolExecutor, answer: Callable[[str], str] = str.upper) -> None:
        self.now = 0.0
        self.batches: list[list[str]] = []
        self._answer = answer
        self._let = threading.Semaphore(0)
        self.batcher = Batcher(self._rank, limits=LIMITS, executor=executor, clock=lambda: self.now)
        self.feeder = BulkSubmitter(self.batcher)

    def _rank(self, queries: Sequence[str]) -> list[str]:
        self.batches.append(list(queries))
        self.now += 1.0
        # The first batch runs on the event loop and teaches the batcher that later ones are too long for it.
        if len(self.batches) > 1:
            self._let.acquire()
        return [self._answer(query) for query in queries]

    def release(self, batches: int = 1) -> None:
        self._let.release(batches)

    @property
    def waiting(self) -> int:
        return self.batcher.waiting


@asynccontextmanager
async def held_batcher() -> AsyncIterator[HeldBatcher]:
    with ThreadPoolExecutor(max_workers=1) as pool:
        held = HeldBatcher(pool)
        await held.batcher.submit("learns", deadline=NEVER)
        occupying = held.batcher.submit("occupies", deadline=NEVER)
        await until(lambda: len(held.batches) == 2)
        try:
            yield held
        finally:
            held.release(1000)
            await asyncio.wait([occupying])


async def outcomes(
    feeder: BulkSubmitter[str, R], queries: Sequence[str | ServingError], deadline: float = NEVER
) -> list[R | ServingError]:
    async with aclosing(feeder.rank(queries, deadline=deadline)) as told:
        return [each if isinstance(each, ServingError) else each[0] async for each in told]


def feed(held: HeldBatcher, queries: Sequence[str | ServingError]) -> "asyncio.Task[list[str | ServingError]]":
    return asyncio.create_task(outcomes(held.feeder, queries))


def queries_of(name: str, count: int = 40) -> list[str]:
    return [f"{name}{number}" for number in range(count)]


async def test_a_small_request_is_queued_whole(turns):
    """A request that fits into one batch is queued whole, however many requests are waiting."""
    async with held_batcher() as held:
        requests = [feed(held, queries_of(name, 4)) for name in "abcde"]
        await turns()
        assert held.waiting == 20
        held.release(6)
        assert [len(each) for each in await asyncio.gather(*requests)] == [4] * 5
        assert [len(batch) for batch in held.batches] == [1, 1, 4, 4, 4, 4, 4]


async def test_large_requests_leave_room_for_single_requests(turns):
    """Large requests fill at most half of the queue, and their batches are full."""
    async with held_batcher() as held:
        requests = [feed(held, queries_of(name)) for name in "abcd"]
        await turns()
        assert held.waiting == LIMITS.max_queue_size // 2
        single = held.batcher.submit("single", deadline=NEVER)
        held.release(6)
        assert (await single)[0] == "SINGLE"
        held.release(1000)
        results = await asyncio.gather(*requests)
        assert results == [[each.upper() for each in queries_of(name)] for name in "abcd"]
        assert held.batcher.dropped.get("shed", 0) == 0
        assert {len(batch) for batch in held.batches[2:-1]} == {4}


async def test_large_requests_are_served_in_order_of_arrival(turns):
    """A later large request does not delay the earlier ones."""
    ended: list[str] = []
    async with held_batcher() as held:

        async def follow(name: str) -> None:
            await outcomes(held.feeder, queries_of(name))
            ended.append(name)

        requests = [asyncio.create_task(follow(name)) for name in "abcdef"]
        await turns()
        held.release(1000)
        await asyncio.gather(*requests)
    assert ended == list("abcdef")


async def test_a_full_queue_refuses_each_item(turns):
    """When the queue has no free place, each item immediately gets its own 503."""
    async with held_batcher() as held:
        others = [held.batcher.submit(each, deadline=NEVER) for each in queries_of("o", LIMITS.max_queue_size)]
        for size in (3, 40):
            refused = await outcomes(held.feeder, queries_of("a", size))
            assert [type(each) for each in refused] == [OverloadedError] * size
        assert held.batcher.dropped["shed"] == 43
        held.release(1000)
        await asyncio.gather(*others)


async def test_a_request_with_one_place_in_the_queue_is_served(turns):
    """A request that gets one place in a full queue reuses that place for all its items."""
    async with held_batcher() as held:
        others = [held.batcher.submit(each, deadline=NEVER) for each in queries_of("o", LIMITS.max_queue_size - 1)]
        requests = [feed(held, queries_of("a", 3)), feed(held, queries_of("b", 3))]
        await turns()
        held.release(1000)
        mine, refused = await asyncio.gather(*requests)
        assert mine == ["A0", "A1", "A2"]
        assert [type(each) for each in refused] == [OverloadedError] * 3
        await asyncio.gather(*others)


async def test_excess_large_requests_are_refused(turns):
    """Excess large requests are refused, their malformed items keep their own errors, and small requests pass."""
    async with held_batcher() as held:
        turns_at_once = LIMITS.max_queue_size // 2 // (2 * LIMITS.max_batch_size)
        waiting = [feed(held, queries_of("a", 9)) for _ in range(turns_at_once + MAX_LARGE_WAITING)]
        await turns()
        malformed = InvalidRequestError()
        refused = await outcomes(held.feeder, [malformed, *queries_of("b", 9)])
        assert refused[0] is malformed
        assert [type(each) for each in refused[1:]] == [OverloadedError] * 9
        small = feed(held, queries_of("c", 2))
        waiting[-1].cancel()
        await turns()
        again = feed(held, queries_of("d", 9))
        held.release(1000)
        assert await small == ["C0", "C1"]
        assert len(await again) == 9
        await asyncio.gather(*waiting[:-1])


@pytest.mark.parametrize("count", [4, 40])
async def test_a_cancelled_request_drops_its_queued_items(turns, count):
    """After a cancellation only the batch that is running is ranked, and the next request takes over."""
    async with held_batcher() as held:
        leaving = feed(held, queries_of("a", count))
        await turns()
        held.release()
        await until(lambda: len(held.batches) == 3)
        leaving.cancel()
        await asyncio.wait([leaving])
        held.release(1000)
        assert await feed(held, queries_of("b")) == [each.upper() for each in queries_of("b")]
    assert [query for batch in held.batches for query in batch if query.startswith("a")] == queries_of("a", 4)
    assert held.batcher.dropped["cancelled"] == min(count - 4, 4)


async def test_unread_errors_are_not_reported(turns):
    """A caller that leaves after all items have expired leaves no unretrieved exception on the event loop."""
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with held_batcher() as held:
        late = held.feeder.rank(queries_of("a", 4), deadline=held.now + 0.5)
        first = asyncio.ensure_future(anext(late))
        await turns()
        held.now += 1.0
        held.release()
        assert type(await first) is DeadlineExceededError
        await late.aclose()
    del late, first
    gc.collect()
    assert told == []


async def test_items_after_the_deadline_are_not_ranked(turns):
    """Items that are still queued when the deadline passes fail with DeadlineExceededError."""
    async with held_batcher() as held:
        request = asyncio.create_task(outcomes(held.feeder, queries_of("a", 12), deadline=held.now + 0.5))
        await turns()
        held.release(1000)
        results = await request
    assert results[:4] == ["A0", "A1", "A2", "A3"]
    assert {type(each) for each in results[4:]} == {DeadlineExceededError}
    assert [len(batch) for batch in held.batches] == [1, 1, 4]


@given(size=st.integers(1, 40), room=st.integers(1, 100), requests=st.lists(st.integers(1, 90), max_size=6))
def test_concurrent_requests_get_their_own_results(size, room, requests):
    """Under any limits and load each request gets its own results in order, and no waiting request is shed."""

    async def scenario() -> list[list[int | ServingError]]:
        with ThreadPoolExecutor(max_workers=1) as pool:
            limits = BatchLimits(max_batch_size=size, max_queue_size=max(size, room, 8))
            batcher: Batcher[int, int] = Batcher(lambda many: [each * 2 for each in many], limits=limits, executor=pool)
            feeder = BulkSubmitter(batcher)

            async def ask(count: int) -> list[int | ServingError]:
                async with aclosing(feeder.rank(range(count), deadline=NEVER)) as told:
                    return [each if isinstance(each, ServingError) else each[0] async for each in told]

            return await asyncio.gather(*map(ask, requests))

    assert asyncio.run(scenario()) == [[number * 2 for number in range(count)] for count in requests]


async def test_a_cancelled_batch_request_leaves_the_queue_empty(turns):
    """A cancelled rank_items handler leaves nothing in the queue."""
    ranked: list[int] = []
    started, let = threading.Event(), threading.Event()

    def rank(queries: Sequence[Query]) -> list[Ranking]:
        ranked.append(len(queries))
        if len(ranked) > 1:
            started.set()
            let.wait(LIMIT_S)
        return [Ranking([], []) for _ in queries]

    one = {
        "features": {"age_group": "x", "avg_session_duration": 0, "total_purchases": 0, "engagement_score": 0},
        "history": [],
    }
    clock = 0.0
    with ThreadPoolExecutor(max_workers=1) as pool:

        def slow(queries: Sequence[Query]) -> list[Ranking]:
            nonlocal clock
            clock += 1.0
            return rank(queries)

        batcher = Batcher(slow, limits=LIMITS, executor=pool, clock=lambda: clock)
        handler = RankItems(batcher, model=Model("m", "1"), attributes=lambda: ItemAttributes([]))

        def call(count: int) -> Call:
            body = json.dumps({"requests": [one] * count}).encode()
            return Call(body, [], "id", Receipt(0.0), Deadline(NEVER))

        assert len(json.loads((await handler(call(1))).body)["results"]) == 1
        leaving = asyncio.ensure_future(handler(call(40)))
        await until(started.is_set)
        leaving.cancel()
        await asyncio.wait([leaving])
        let.set()
        assert len(json.loads((await handler(call(2))).body)["results"]) == 2
    assert ranked == [1, 4, 2]
