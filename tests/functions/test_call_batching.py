import asyncio
from collections.abc import Sequence

import pytest

from chassis.batching.async_batcher import AsyncBatcher
from chassis.batching.queue import BatchLimits
from chassis.call import Call, Deadline
from chassis.hop.client import HopAnswer
from chassis.receipt import Receipt
from chassis.wire.problems import DeadlineExceededError, DependencyError, OverloadedError
from functions.recommend.call_batching import CallBatcher


class Hop:
    """Return each query in upper case, once *release* is set, as it is unless the hop is *held*."""

    def __init__(self, *, held: bool = False) -> None:
        self.requests: list[list[str]] = []
        self.budgets: list[float] = []
        self.release = asyncio.Event()
        if not held:
            self.release.set()
        self.error: DependencyError | None = None
        self.model_s: float | None = None

    async def __call__(self, queries: Sequence[str], *, call: Call, within_s: float) -> HopAnswer[list[str]]:
        self.requests.append(list(queries))
        self.budgets.append(within_s)
        await self.release.wait()
        if self.error:
            raise self.error
        durations = {"total": 0.25} if self.model_s is None else {"model": self.model_s}
        return HopAnswer([query.upper() for query in queries], 0.5, durations, {"rev": "r"})


def limits(slots: int = 1, room: int = 100) -> BatchLimits:
    return BatchLimits(max_batch_size=10, max_wait_s=0.0, max_queue_size=room, slots=slots)


def ask(batcher: CallBatcher[str, str], query: str, seconds: float = 60.0) -> "asyncio.Task[HopAnswer[list[str]]]":
    call = Call(b"", [], f"id-{query}", Receipt(0.0), Deadline.after(seconds))
    return asyncio.create_task(batcher([query], call=call, within_s=seconds))


async def test_a_single_call_is_sent_alone():
    """One query is one request, and its answer carries the hop's own receipt."""
    hop = Hop()
    answer = await ask(CallBatcher(hop, limits=limits()), "a")
    assert answer == HopAnswer(["A"], 0.5, {"total": 0.25}, {"rev": "r"})
    assert hop.requests == [["a"]]


async def after_a_single_call(hop: Hop, *, slots: int = 1) -> CallBatcher[str, str]:
    """Return a batcher whose last call was sent alone."""
    batcher = CallBatcher(hop, limits=limits(slots=slots))
    await ask(batcher, "first")
    hop.requests.clear()
    hop.budgets.clear()
    return batcher


async def test_a_call_after_a_single_call_is_sent_immediately(turns):
    """The batcher sends the second call in its caller's turn, and groups the calls that arrive afterwards."""
    hop = Hop()
    batcher = await after_a_single_call(hop)
    hop.release.clear()
    alone = ask(batcher, "a")
    await asyncio.sleep(0)
    assert hop.requests == [["a"]]
    company = [ask(batcher, each) for each in "bc"]
    await turns()
    assert hop.requests == [["a"]]
    hop.release.set()
    assert [answer.value for answer in await asyncio.gather(alone, *company)] == [["A"], ["B"], ["C"]]
    assert hop.requests == [["a"], ["b", "c"]]
    await asyncio.gather(*(ask(batcher, each) for each in "de"))
    assert hop.requests[2:] == [["d", "e"]]


@pytest.mark.parametrize("ending", ["failed", "late", "cancelled"])
async def test_a_failed_single_call_frees_its_slot(turns, ending):
    """Only the caller of the failed call sees the error, and the next call is served."""
    hop = Hop()
    batcher = await after_a_single_call(hop)
    if ending == "failed":
        hop.error = DependencyError("down")
        with pytest.raises(DependencyError):
            await ask(batcher, "a")
    else:
        hop.release.clear()
        alone = ask(batcher, "a", 0.02 if ending == "late" else 5.0)
        await turns()
        if ending == "cancelled":
            alone.cancel()
        with pytest.raises(DeadlineExceededError if ending == "late" else asyncio.CancelledError):
            await alone
    hop.error = None
    hop.release.set()
    assert (await ask(batcher, "b")).value == ["B"]


async def test_simultaneous_calls_share_a_request():
    """Calls of one turn share a request, and each gets its own answer."""
    hop = Hop()
    batcher = CallBatcher(hop, limits=limits(slots=16))
    answers = await asyncio.gather(*(ask(batcher, each) for each in "abc"))
    assert [answer.value for answer in answers] == [["A"], ["B"], ["C"]]
    assert hop.requests == [["a", "b", "c"]]


async def test_calls_queue_while_all_slots_are_taken(turns):
    """Calls queue while every slot is in use and are sent when a slot is free."""
    hop = Hop(held=True)
    batcher = CallBatcher(hop, limits=limits(slots=2))
    asked = []
    for each in "abcd":
        asked.append(ask(batcher, each))
        await turns()
    assert hop.requests == [["a"], ["b"]]
    hop.release.set()
    await asyncio.gather(*asked)
    assert hop.requests == [["a"], ["b"], ["c", "d"]]


async def test_a_request_holds_no_more_calls_than_the_limit():
    """The coalescer splits more calls than the limit into several requests."""
    hop = Hop()
    batcher = CallBatcher(hop, limits=limits(slots=3))
    await asyncio.gather(*(ask(batcher, str(number)) for number in range(25)))
    assert [len(request) for request in hop.requests] == [10, 10, 5]


async def test_a_failed_request_fails_every_call_in_it(turns):
    """If a shared request fails, every call in it fails, and calls in other requests do not."""
    hop = Hop()
    hop.error = DependencyError("down")
    batcher = CallBatcher(hop, limits=limits())
    for answer in await asyncio.gather(ask(batcher, "a"), ask(batcher, "b"), return_exceptions=True):
        assert isinstance(answer, DependencyError)
    hop.error = None
    assert (await ask(batcher, "c")).value == ["C"]


async def test_too_few_results_fail_the_whole_group():
    """A group that returns too few results fails all its calls immediately, not at their deadline."""

    async def run(queries: Sequence[str], within_s: float) -> list[str]:
        return list(queries[1:])

    grouper: AsyncBatcher[str, str] = AsyncBatcher(run, limits=limits())
    outcomes = await asyncio.gather(*(grouper.ask(query, within_s=30) for query in "abc"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError] * 3


async def test_each_call_keeps_its_own_deadline(turns):
    """A shared request runs as long as its most patient caller waits; an impatient caller leaves earlier."""
    hop = Hop(held=True)
    batcher = CallBatcher(hop, limits=limits())
    hasty, patient = ask(batcher, "a", 0.02), ask(batcher, "b", 500.0)
    with pytest.raises(DeadlineExceededError):
        await hasty
    assert hop.budgets[0] == pytest.approx(500, abs=50)
    hop.release.set()
    assert (await patient).value == ["B"]


async def test_expired_and_cancelled_calls_are_not_sent(turns):
    """A queued call that expires or is cancelled is not sent."""
    hop = Hop(held=True)
    batcher = CallBatcher(hop, limits=limits())
    first = ask(batcher, "a")
    await turns()
    hasty, gone, last = ask(batcher, "b", 0.01), ask(batcher, "c"), ask(batcher, "d")
    await turns()
    gone.cancel()
    with pytest.raises(DeadlineExceededError):
        await hasty
    hop.release.set()
    assert (await first).value == ["A"]
    assert (await last).value == ["D"]
    assert hop.requests == [["a"], ["d"]]


async def test_a_request_without_callers_is_cancelled(turns):
    """When the last caller of a request leaves, the request is cancelled and its slot is free."""
    hop = Hop(held=True)
    batcher = CallBatcher(hop, limits=limits())
    leaving = [ask(batcher, each) for each in "ab"]
    await turns()
    leaving[0].cancel()
    await turns()
    staying = ask(batcher, "c")
    await turns()
    assert hop.requests == [["a", "b"]]
    leaving[1].cancel()
    await turns()
    assert hop.requests == [["a", "b"], ["c"]]
    hop.release.set()
    assert (await staying).value == ["C"]


async def test_a_request_is_cancelled_when_the_time_of_its_callers_ends(turns):
    """Work that runs beyond the time of all its callers is cancelled, and its slot is free for the next call."""
    ended: list[str] = []

    async def run(queries: Sequence[str], _within_s: float) -> Sequence[str]:
        try:
            if "c" not in queries:
                await asyncio.Event().wait()
        finally:
            ended.extend(queries)
        return queries

    batcher: AsyncBatcher[str, str] = AsyncBatcher(run, limits=limits())
    outcomes = await asyncio.gather(*(batcher.ask(each, within_s=0.01) for each in "ab"), return_exceptions=True)
    assert [type(each) for each in outcomes] == [DeadlineExceededError] * 2
    await turns()
    assert ended == ["a", "b"]
    assert await batcher.ask("c", within_s=30) == "c"


async def test_a_request_whose_callers_leave_before_it_begins_frees_its_slot():
    """The slot of a batch is free again although all its callers left between the cut and the first step of the batch."""
    hop = Hop()
    batcher = CallBatcher(hop, limits=limits())
    first, second = ask(batcher, "a"), ask(batcher, "b")
    await asyncio.sleep(0)
    # The batch is cut in the next turn. Then the second caller leaves, and the first one notices that it was cancelled.
    asyncio.get_running_loop().call_soon(second.cancel)
    first.cancel()
    await asyncio.wait([first, second])
    assert (await ask(batcher, "c", seconds=1.0)).value == ["C"]


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_an_expired_call_is_not_sent(single, seconds):
    """A call without time left fails with DeadlineExceededError and is not sent, in a group or alone."""
    hop = Hop()
    batcher = await after_a_single_call(hop) if single else CallBatcher(hop, limits=limits())
    with pytest.raises(DeadlineExceededError):
        await ask(batcher, "a", seconds)
    assert hop.requests == []


async def test_a_full_queue_refuses_calls(turns):
    """A call that finds the queue full is refused."""
    hop = Hop(held=True)
    batcher = CallBatcher(hop, limits=limits(room=1))
    first = ask(batcher, "a")
    await turns()
    second = ask(batcher, "b")
    await turns()
    with pytest.raises(OverloadedError):
        await ask(batcher, "c")
    hop.release.set()
    await asyncio.gather(first, second)


@pytest.mark.parametrize("together", [1, 2])
async def test_the_groups_follow_the_time_of_the_model(turns, together):
    """Calls to a quick model share few large requests, and calls to a slow one many small ones, alone or in groups."""
    hop = Hop()
    small = BatchLimits(max_batch_size=2, max_wait_s=0.0, max_queue_size=100, slots=5)
    batcher = CallBatcher(hop, limits=small, quick=limits(slots=1))
    for model_s, sizes in ((0.001, [1, 7]), (0.05, [1, 2, 2, 2, 1])):
        hop.model_s = model_s
        for _ in range(12):
            await asyncio.gather(*(ask(batcher, "x") for _ in range(together)))
        hop.requests.clear()
        hop.release.clear()
        first = ask(batcher, "a")
        await turns()
        asked = [ask(batcher, each) for each in "bcdefgh"]
        await turns()
        hop.release.set()
        await asyncio.gather(first, *asked)
        assert [len(request) for request in hop.requests] == sizes


async def test_waiting_calls_are_sent_when_the_limits_grow(turns):
    """Waiting calls are sent as soon as more requests may be in flight."""
    release = asyncio.Event()
    sent: list[Sequence[str]] = []

    async def run(queries: Sequence[str], _within_s: float) -> Sequence[str]:
        sent.append(queries)
        await release.wait()
        return queries

    batcher: AsyncBatcher[str, str] = AsyncBatcher(run, limits=limits())
    first = asyncio.create_task(batcher.ask("a", within_s=30))
    await turns()
    second = asyncio.create_task(batcher.ask("b", within_s=30))
    await turns()
    assert sent == [["a"]]
    batcher.limit(limits(slots=2))
    await turns()
    assert sent == [["a"], ["b"]]
    release.set()
    await asyncio.gather(first, second)
