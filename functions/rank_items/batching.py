"""
Micro-batching: concurrent requests of one instance are ranked together.

One slot runs one batch at a time. The slot is taken first and the batch is cut last: while the slot is busy the
queue grows, and whatever waits when it frees goes together, at most `max_batch_size`. A lone request on an idle
instance therefore waits for nothing. Only while further requests are known to be arriving (their bodies are being
read) may a free slot wait for them, at most `max_wait_s`.

`BatchQueue` decides and does no I/O; `Batcher` carries its decisions out on the event loop.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from recsys.contracts.problems import DeadlineExceededError, OverloadedError, ServingError

Q = TypeVar("Q")
R = TypeVar("R")
T = TypeVar("T")

Clock = Callable[[], float]
CutReason = Literal["full", "slot_free", "window", "drain"]

log = logging.getLogger("recsys.rank_items")


@dataclass(frozen=True)
class BatchLimits:
    """
    The batcher's bounds.

    Attributes:
        max_batch_size: Items in one batch at most.
        max_wait_s: How long a free slot waits for requests that are arriving.
        max_queue_size: Requests waiting at most; further ones are shed.
        inline_s: A batch expected to take no longer than this runs on the event loop; handing work to a thread
            and back costs about 0.1 ms, and blocking the loop delays everybody's I/O by the batch's length.
    """

    max_batch_size: int = 32
    max_wait_s: float = 0.010
    max_queue_size: int = 256
    inline_s: float = 0.005


@dataclass(frozen=True)
class Entry(Generic[T]):
    """Something waiting: since when, and until when it is of use (both on the batcher's clock)."""

    item: T
    enqueued: float
    deadline: float


@dataclass(frozen=True)
class Cut(Generic[T]):
    """A batch to run now: its entries in order of arrival, and why it was cut."""

    entries: list[Entry[T]]
    reason: CutReason


@dataclass(frozen=True)
class Decision(Generic[T]):
    """What to do: answer the *expired*, run *cut* if there is one, else look again at *wake_at* if that is set."""

    expired: list[Entry[T]] = field(default_factory=list)
    cut: Cut[T] | None = None
    wake_at: float | None = None


class BatchQueue(Generic[T]):
    """
    The decision core. Not a coroutine in it; time comes in as an argument.

    Args:
        limits: The bounds.
        abandoned: Tells whether nobody waits for an item any more.

    Invariants: first in, first out; at most `max_queue_size` entries wait; no cut while the slot is taken.
    """

    def __init__(self, limits: BatchLimits, *, abandoned: Callable[[T], bool]) -> None:
        self._limits = limits
        self._abandoned = abandoned
        self._waiting: deque[Entry[T]] = deque()
        self._draining = False
        self.slot_taken = False
        self.dropped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, entry: Entry[T]) -> bool:
        """Take *entry* in, or return False because the queue is full of live entries."""
        if len(self._waiting) >= self._limits.max_queue_size:
            self._drop_abandoned()
        if len(self._waiting) >= self._limits.max_queue_size:
            self.dropped["shed"] += 1
            return False
        self._waiting.append(entry)
        return True

    def decide(self, now: float, *, arriving: int) -> Decision[T]:
        """Return what to do at *now*, with *arriving* requests on their way in; taking the slot if a batch is cut."""
        if self.slot_taken:
            return Decision()
        self._drop_abandoned()
        expired = self._take_expired(now)
        if not self._waiting:
            return Decision(expired)
        reason = self._reason(now, arriving)
        if reason is None:
            return Decision(expired, wake_at=self._waiting[0].enqueued + self._limits.max_wait_s)
        size = min(len(self._waiting), self._limits.max_batch_size)
        self.slot_taken = True
        return Decision(expired, Cut([self._waiting.popleft() for _ in range(size)], reason))

    def free_slot(self) -> None:
        """Note that the running batch has ended."""
        self.slot_taken = False

    def drain(self) -> None:
        """Wait for nobody any more."""
        self._draining = True

    def _reason(self, now: float, arriving: int) -> CutReason | None:
        if len(self._waiting) >= self._limits.max_batch_size:
            return "full"
        if self._draining:
            return "drain"
        if not arriving:
            return "slot_free"
        if now >= self._waiting[0].enqueued + self._limits.max_wait_s:
            return "window"
        return None

    def _drop_abandoned(self) -> None:
        kept = deque(entry for entry in self._waiting if not self._abandoned(entry.item))
        self.dropped["cancelled"] += len(self._waiting) - len(kept)
        self._waiting = kept

    def _take_expired(self, now: float) -> list[Entry[T]]:
        expired = [entry for entry in self._waiting if entry.deadline <= now]
        if expired:
            self._waiting = deque(entry for entry in self._waiting if entry.deadline > now)
            self.dropped["expired"] += len(expired)
        return expired


@dataclass(frozen=True)
class BatchFacts:
    """
    What a request is told about the batch it was in, durations in seconds.

    Attributes:
        size: Requests in the batch.
        reason: Why it was cut.
        slot_wait_s: Waited behind a running batch.
        fill_wait_s: Waited in front of a free slot.
        execution_s: The batch's own time.
    """

    size: int
    reason: CutReason
    slot_wait_s: float
    fill_wait_s: float
    execution_s: float


@dataclass(frozen=True)
class BatchStatistics:
    """Totals since the start; durations in seconds, summed over items (execution: over batches)."""

    batches: int
    items: int
    waiting: int
    sizes: dict[int, int]
    reasons: dict[str, int]
    dropped: dict[str, int]
    slot_wait_s: float
    fill_wait_s: float
    execution_s: float


@dataclass(frozen=True)
class _Job(Generic[Q, R]):
    query: Q
    answer: "asyncio.Future[tuple[R, BatchFacts]]"


class Batcher(Generic[Q, R]):
    """
    Runs *rank* over batches of what is submitted.

    Args:
        rank: Queries in, one result each in the same order; row for row what each query alone would get.
        limits: The bounds.
        executor: Runs batches too long for the event loop, one at a time.
        arriving: How many requests are being read right now.
        clock: Monotonic seconds.

    A query that makes *rank* raise fails alone: the batch is halved until the culprits are single.
    """

    def __init__(
        self,
        rank: Callable[[Sequence[Q]], list[R]],
        *,
        limits: BatchLimits,
        executor: Executor,
        arriving: Callable[[], int] = lambda: 0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._rank = rank
        self._limits = limits
        self._executor = executor
        self._arriving = arriving
        self._clock = clock
        self._queue: BatchQueue[_Job[Q, R]] = BatchQueue(limits, abandoned=lambda job: job.answer.done())
        self._next_look: asyncio.Handle | None = None
        self._window: asyncio.TimerHandle | None = None
        self._slot_freed = clock()
        self._cost_s = 0.0
        self._sizes: Counter[int] = Counter()
        self._reasons: Counter[str] = Counter()
        self._slot_wait_s = self._fill_wait_s = self._execution_s = 0.0

    def submit(self, query: Q, *, deadline: float) -> "asyncio.Future[tuple[R, BatchFacts]]":
        """
        Queue *query*; the future yields its result and what became of it.

        Cancel the future to leave the queue. It fails with DeadlineExceededError when *deadline* (on the batcher's
        clock) passes first.

        Raises:
            OverloadedError: the queue is full.
        """
        job = _Job(query, asyncio.get_running_loop().create_future())
        if not self._queue.put(Entry(job, self._clock(), deadline)):
            raise OverloadedError(retry_after_s=self._drain_time_s())
        self._look_soon()
        return job.answer

    def drain(self) -> None:
        """Run what waits without waiting for more."""
        self._queue.drain()
        self._look_soon()

    def statistics(self) -> BatchStatistics:
        """Return the totals so far."""
        return BatchStatistics(
            batches=self._sizes.total(),
            items=sum(size * count for size, count in self._sizes.items()),
            waiting=len(self._queue),
            sizes=dict(self._sizes),
            reasons=dict(self._reasons),
            dropped=dict(self._queue.dropped),
            slot_wait_s=self._slot_wait_s,
            fill_wait_s=self._fill_wait_s,
            execution_s=self._execution_s,
        )

    def _look_soon(self) -> None:
        # Not now: requests that came in with this one are tasks already waiting for their turn on the loop, and
        # after one turn of it they are in the queue.
        if self._next_look is None and not self._queue.slot_taken:
            self._next_look = asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._next_look = None
        if self._window is not None:
            self._window.cancel()
            self._window = None
        decision = self._queue.decide(self._clock(), arriving=self._arriving())
        for entry in decision.expired:
            entry.item.answer.set_exception(DeadlineExceededError())
        if decision.cut:
            self._start(decision.cut)
        elif decision.wake_at is not None:
            delay_s = max(0.0, decision.wake_at - self._clock())
            self._window = asyncio.get_running_loop().call_later(delay_s, self._look)

    def _start(self, cut: Cut[_Job[Q, R]]) -> None:
        began = self._clock()
        if self._cost_s * len(cut.entries) <= self._limits.inline_s:
            self._finish(cut, began, self._run([entry.item.query for entry in cut.entries]))
            return
        queries = [entry.item.query for entry in cut.entries]
        work = asyncio.get_running_loop().run_in_executor(self._executor, self._run, queries)
        work.add_done_callback(lambda done: self._finish(cut, began, done.result()))

    def _run(self, queries: Sequence[Q]) -> list[R | Exception]:
        try:
            results = self._rank(queries)
            if len(results) != len(queries):
                raise RuntimeError(f"{len(results)} results for {len(queries)} queries")
            return list(results)
        except Exception as error:  # noqa: BLE001 - whatever a query does to the model is that query's failure
            if len(queries) == 1:
                return [error]
            half = len(queries) // 2
            return self._run(queries[:half]) + self._run(queries[half:])

    def _finish(self, cut: Cut[_Job[Q, R]], began: float, results: list[R | Exception]) -> None:
        ended = self._clock()
        execution_s = ended - began
        for entry, result in zip(cut.entries, results, strict=True):
            slot_wait_s = max(0.0, self._slot_freed - entry.enqueued)
            facts = BatchFacts(
                size=len(cut.entries),
                reason=cut.reason,
                slot_wait_s=slot_wait_s,
                fill_wait_s=began - entry.enqueued - slot_wait_s,
                execution_s=execution_s,
            )
            self._slot_wait_s += facts.slot_wait_s
            self._fill_wait_s += facts.fill_wait_s
            _settle(entry.item.answer, result, facts)
        self._note(len(cut.entries), cut.reason, execution_s)
        self._slot_freed = ended
        self._queue.free_slot()
        if len(self._queue):
            self._look_soon()

    def _note(self, size: int, reason: CutReason, execution_s: float) -> None:
        self._sizes[size] += 1
        self._reasons[reason] += 1
        self._execution_s += execution_s
        per_item_s = execution_s / size
        self._cost_s = per_item_s if not self._cost_s else 0.8 * self._cost_s + 0.2 * per_item_s

    def _drain_time_s(self) -> float:
        return max(1.0, len(self._queue) * self._cost_s)


def _settle(answer: "asyncio.Future[tuple[R, BatchFacts]]", result: R | Exception, facts: BatchFacts) -> None:
    if answer.done():
        return
    if isinstance(result, ServingError):
        answer.set_exception(result)
    elif isinstance(result, Exception):
        log.error("item_failed", exc_info=result)
        answer.set_exception(ServingError())
    else:
        answer.set_result((result, facts))
