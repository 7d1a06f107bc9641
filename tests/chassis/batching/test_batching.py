import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.batching.batcher import Batcher, BatchFacts
from chassis.batching.queue import BatchLimits
from chassis.wire.problems import DeadlineExceededError, OverloadedError, ServingError, UnsupportedMediaTypeError
from tests.waiting import LIMIT_S

NEVER = math.inf


class Ranker:
    """A model that upper-cases queries and records its batches; any batch with the *poison* query raises."""

    def __init__(self, poison: str = "") -> None:
        self.batches: list[list[str]] = []
        self._poison = poison

    def __call__(self, queries: Sequence[str]) -> list[str]:
        self.batches.append(list(queries))
        if self._poison and self._poison in queries:
            raise ValueError(f"cannot rank {self._poison}")
        return [query.upper() for query in queries]


@pytest.fixture
def executor():
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool


async def test_requests_of_one_turn_share_a_batch(executor):
    """Requests submitted in one turn of the loop share a batch, and each is told about that batch."""
    ranker = Ranker()
    batcher = Batcher(ranker, limits=BatchLimits(), executor=executor)
    answers = await asyncio.gather(*(batcher.submit(each, deadline=NEVER) for each in "abc"))
    assert [result for result, _ in answers] == ["A", "B", "C"]
    assert ranker.batches == [["a", "b", "c"]]
    facts = answers[0][1]
    assert (facts.size, facts.reason) == (3, "slot_free")
    assert min(facts.fill_wait_s, facts.slot_wait_s, facts.execution_s) >= 0


async def test_a_batch_holds_no_more_requests_than_the_limit(executor):
    """Forty simultaneous requests are a full batch and a batch of the remaining eight, in order."""
    ranker = Ranker()
    batcher = Batcher(ranker, limits=BatchLimits(), executor=executor)
    crowd = [f"q{number}" for number in range(40)]
    answers = await asyncio.gather(*(batcher.submit(each, deadline=NEVER) for each in crowd))
    assert [result for result, _ in answers] == [each.upper() for each in crowd]
    assert [len(batch) for batch in ranker.batches] == [32, 8]
    assert Counter((facts.size, facts.reason) for _, facts in answers) == {(32, "full"): 32, (8, "slot_free"): 8}
    assert batcher.waiting == 0


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("place", [0, -1])
async def test_a_poisoned_item_fails_alone(executor, size, place, caplog):
    """In a batch of any size, only the item that breaks the model gets the error."""
    items = [f"q{number}" for number in range(size)]
    batcher = Batcher(Ranker(poison=items[place]), limits=BatchLimits(), executor=executor)
    answers = await asyncio.gather(*(batcher.submit(each, deadline=NEVER) for each in items), return_exceptions=True)
    failed = answers.pop(place)
    assert type(failed) is ServingError
    assert [each[0] for each in answers if isinstance(each, tuple)] == [
        each.upper() for each in items if each != items[place]
    ]
    assert [record.message for record in caplog.records] == ["item_failed"]


async def test_an_error_with_a_status_is_passed_on(executor):
    """The caller receives the model's own error when that error has a status."""

    def refuse(queries: Sequence[str]) -> list[str]:
        raise UnsupportedMediaTypeError

    batcher = Batcher(refuse, limits=BatchLimits(), executor=executor)
    with pytest.raises(UnsupportedMediaTypeError):
        await batcher.submit("a", deadline=NEVER)


async def test_a_wrong_number_of_results_fails_the_batch(executor):
    """If the model returns too few results, every item fails, and the batcher serves the next one."""
    answers: list[list[str]] = [[], [], []]
    batcher = Batcher(
        lambda queries: answers.pop() if answers else list(queries), limits=BatchLimits(), executor=executor
    )
    failed = await asyncio.gather(*(batcher.submit(each, deadline=NEVER) for each in "ab"), return_exceptions=True)
    assert [type(each) for each in failed] == [ServingError, ServingError]
    assert (await batcher.submit("c", deadline=NEVER))[0] == "c"


async def test_a_full_batcher_refuses_with_retry_after(executor):
    """The batcher immediately refuses a request that does not fit into the queue."""
    batcher = Batcher(Ranker(), limits=BatchLimits(max_queue_size=2, max_batch_size=2), executor=executor)
    accepted = [batcher.submit(each, deadline=NEVER) for each in "ab"]
    with pytest.raises(OverloadedError) as caught:
        batcher.submit("c", deadline=NEVER)
    assert (caught.value.retry_after_s or 0) >= 1
    assert [result for result, _ in await asyncio.gather(*accepted)] == ["A", "B"]
    assert batcher.dropped == {"shed": 1, "cancelled": 0}


async def test_expired_and_cancelled_requests_do_not_run(executor):
    """An expired request gets DeadlineExceededError, and neither an expired nor a cancelled one reaches the model."""
    now = 0.0
    ranker = Ranker()
    batcher = Batcher(ranker, limits=BatchLimits(), executor=executor, clock=lambda: now)
    late, gone, live = (batcher.submit(each, deadline=limit) for each, limit in (("l", 1.0), ("g", 5.0), ("v", 5.0)))
    gone.cancel()
    now = 2.0
    assert (await live)[0] == "V"
    with pytest.raises(DeadlineExceededError):
        await late
    assert ranker.batches == [["v"]]


async def test_a_batch_waits_for_arriving_requests_only(executor, turns):
    """A batch waits while requests are being read and starts when the last has arrived, before the window ends."""
    arriving = 2
    ranker = Ranker()
    batcher = Batcher(ranker, limits=BatchLimits(max_wait_s=30), executor=executor, arriving=lambda: arriving)
    first = batcher.submit("a", deadline=NEVER)
    await turns()
    assert not first.done()
    arriving = 0
    second = batcher.submit("b", deadline=NEVER)
    assert (await first)[0] == "A"
    assert (await second)[0] == "B"
    assert ranker.batches == [["a", "b"]]


async def test_the_window_limits_the_wait(executor):
    """A request that never finishes arriving delays the others by the window at most."""
    batcher = Batcher(Ranker(), limits=BatchLimits(max_wait_s=0.001), executor=executor, arriving=lambda: 1)
    assert (await batcher.submit("a", deadline=NEVER))[1].reason == "window"


async def test_draining_runs_the_waiting_requests(executor, turns):
    """A draining batcher stops waiting for arrivals."""
    batcher = Batcher(Ranker(), limits=BatchLimits(max_wait_s=30), executor=executor, arriving=lambda: 1)
    waiting = batcher.submit("a", deadline=NEVER)
    await turns()
    batcher.drain()
    assert (await waiting)[1].reason == "drain"


async def test_long_batches_run_on_the_executor(executor, turns):
    """After a long batch the next ones run on the executor, so the loop stays free and the following batch grows."""
    clock = 0.0
    release = asyncio.Event()
    loop = asyncio.get_running_loop()
    batches: list[int] = []

    def rank(queries: Sequence[str]) -> list[str]:
        nonlocal clock
        batches.append(len(queries))
        clock += 1.0
        if len(batches) == 2:
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        return list(queries)

    batcher = Batcher(rank, limits=BatchLimits(), executor=executor, clock=lambda: clock)
    await batcher.submit("learns that batches take a second", deadline=NEVER)
    running = batcher.submit("a", deadline=NEVER)
    await turns()
    grown = [batcher.submit(each, deadline=NEVER) for each in "bcd"]
    await turns()
    assert batches == [1, 1]
    release.set()
    assert (await running)[0] == "a"
    facts = [facts for _, facts in await asyncio.gather(*grown)]
    assert batches == [1, 1, 3]
    assert facts[0].slot_wait_s >= 0


def double(numbers: Sequence[int]) -> list[int]:
    return [number * 2 for number in numbers]


@given(crowd=st.lists(st.integers(0, 1000), max_size=100), size=st.integers(1, 40))
def test_a_batch_equals_single_requests(crowd, size):
    """With any batch size, every request gets the result that it would get alone."""

    async def scenario() -> list[int]:
        with ThreadPoolExecutor(max_workers=1) as pool:
            limits = BatchLimits(max_batch_size=size, max_queue_size=200)
            batcher: Batcher[int, int] = Batcher(double, limits=limits, executor=pool)
            return [
                result for result, _ in await asyncio.gather(*(batcher.submit(each, deadline=NEVER) for each in crowd))
            ]

    assert asyncio.run(scenario()) == [query * 2 for query in crowd]


class RandomRun:
    """A random sequence of arrivals, cancellations and failures, run against the batcher on a fake clock."""

    LIMITS = BatchLimits(max_batch_size=3, max_wait_s=0.001, max_queue_size=5)

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.now = 0.0
        self.arriving = 0
        self.ran: list[int] = []
        self.poisoned: set[int] = set()
        self.batcher: Batcher[int, int] = Batcher(
            self.rank, limits=self.LIMITS, executor=executor, arriving=lambda: self.arriving, clock=lambda: self.now
        )
        self.answers: dict[int, asyncio.Future[tuple[int, BatchFacts]]] = {}
        self.deadlines: dict[int, float] = {}
        self.shed: set[int] = set()

    def rank(self, queries: Sequence[int]) -> list[int]:
        assert len(queries) <= self.LIMITS.max_batch_size
        if self.poisoned & set(queries):
            raise ValueError("poison")
        self.now += 0.002
        self.ran += queries
        return [query * 2 for query in queries]

    def arrive(self, number: int, patience: float, *, poison: bool) -> None:
        if poison:
            self.poisoned.add(number)
        self.deadlines[number] = self.now + patience
        try:
            self.answers[number] = self.batcher.submit(number, deadline=self.now + patience)
        except OverloadedError:
            assert self.batcher.waiting == self.LIMITS.max_queue_size
            self.shed.add(number)

    async def end(self) -> None:
        self.arriving = 0
        self.batcher.drain()
        await asyncio.wait(self.answers.values(), timeout=LIMIT_S)

    def check(self) -> None:
        assert self.ran == sorted(self.ran)
        assert len(self.ran) == len(set(self.ran))
        for number, answer in self.answers.items():
            assert answer.done()
            if answer.cancelled():
                continue
            error = answer.exception()
            if error is None:
                assert number in self.ran
                assert answer.result()[0] == number * 2
            elif isinstance(error, DeadlineExceededError):
                assert number not in self.ran
                assert self.deadlines[number] <= self.now
            else:
                assert type(error) is ServingError
                assert number in self.poisoned


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.sampled_from([0.0, 0.001, 1.0, NEVER]), st.booleans()),
        st.tuples(st.just("cancel"), st.integers(0, 60), st.just(False)),
        st.tuples(st.just("pass"), st.sampled_from([0.0005, 0.005, 2.0]), st.booleans()),
        st.tuples(st.just("turn"), st.integers(1, 4), st.booleans()),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_every_request_gets_one_answer(steps):
    """Each request gets its result, its error, DeadlineExceededError at its deadline, or nothing once cancelled."""

    async def scenario() -> None:
        with ThreadPoolExecutor(max_workers=1) as pool:
            run = RandomRun(pool)
            for number, (what, amount, also) in enumerate(steps):
                if what == "arrive":
                    run.arrive(number, amount, poison=also)
                elif what == "cancel" and amount in run.answers:
                    run.answers[int(amount)].cancel()
                elif what == "pass":
                    run.now += amount
                    run.arriving = int(also)
                else:
                    for _ in range(int(amount)):
                        await asyncio.sleep(0)
            if run.answers:
                await run.end()
            run.check()

    asyncio.run(scenario())
