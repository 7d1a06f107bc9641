"""
Runs a model on batches of the concurrent requests of one instance.

One slot runs one batch at a time; `chassis.batching.queue` decides which requests form a batch.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

from msgspec import Struct

from chassis.batching.costs import BatchCosts
from chassis.batching.queue import BatchLimits, BatchQueue, Cut, CutReason, QueueEntry
from chassis.telemetry import definitions
from chassis.telemetry.instruments import Histogram, Instrument, Totals
from chassis.wire.problems import DeadlineExceededError, OverloadedError, ServingError

Q = TypeVar("Q")
R = TypeVar("R")

Clock = Callable[[], float]

# A batch expected to take no longer than this runs on the event loop: a thread costs about 0.1 ms more, and a batch on
# the loop delays all I/O by its own length.
INLINE_S = 0.005

log = logging.getLogger("chassis")


class BatchFacts(Struct, frozen=True):
    """
    The batch of a request, durations in seconds.

    Attributes:
        size: Requests in the batch.
        reason: The reason for the cut.
        slot_wait_s: Time that the request waited for a running batch.
        fill_wait_s: Time that the request waited for others while the slot was free.
        execution_s: Time that the model took for the batch.
        began: The start of the batch, on the batcher's clock.
    """

    size: int
    reason: CutReason
    slot_wait_s: float
    fill_wait_s: float
    execution_s: float
    began: float


class _Job(Struct, Generic[Q, R], frozen=True):
    query: Q
    answer: "asyncio.Future[tuple[R, BatchFacts]]"


class Batcher(Generic[Q, R]):
    """
    Runs *rank* over batches of what is submitted.

    Args:
        rank: Queries in, one result each in the same order; row for row what each query alone would get.
        limits: The bounds.
        executor: Runs batches too long for the event loop, one at a time; by default the event loop's own executor.
        arriving: How many requests are being read right now.
        clock: Monotonic seconds.

    Attributes:
        limits: As given.

    A query that makes *rank* raise fails alone: the batch is halved until the culprits are single.
    """

    def __init__(
        self,
        rank: Callable[[Sequence[Q]], list[R]],
        *,
        limits: BatchLimits = BatchLimits(),
        executor: Executor | None = None,
        arriving: Callable[[], int] = lambda: 0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._rank = rank
        self.limits = limits
        self._executor = executor
        self._arriving = arriving
        self._clock = clock
        self._queue: BatchQueue[_Job[Q, R]] = BatchQueue(limits, abandoned=lambda job: job.answer.done())
        self._next_look: asyncio.Handle | None = None
        self._window: asyncio.TimerHandle | None = None
        self._slot_freed = clock()
        self._costs = BatchCosts()
        self._reasons: Counter[str] = Counter()
        self._size_histogram = Histogram(definitions.BATCH_SIZE)
        self._wait_histogram = Histogram(definitions.BATCH_WAIT)
        self._execution_histogram = Histogram(definitions.BATCH_EXECUTION)

    def submit(self, query: Q, *, deadline: float) -> "asyncio.Future[tuple[R, BatchFacts]]":
        """
        Queue *query*; the future yields its result and what became of it.

        Cancel the future to leave the queue. It fails with DeadlineExceededError when *deadline* (on the batcher's
        clock) passes first.

        Raises:
            OverloadedError: the queue is full.
        """
        job = _Job(query, asyncio.get_running_loop().create_future())
        if not self._queue.put(QueueEntry(job, self._clock(), deadline)):
            raise self._overloaded()
        self._look_soon()
        return job.answer

    @property
    def has_room(self) -> bool:
        """Whether the queue has a free place, counting callers that have left as present."""
        return len(self._queue) < self.limits.max_queue_size

    def refuse(self) -> OverloadedError:
        """Count a request that is shed without being queued, and return its error."""
        self._queue.dropped["shed"] += 1
        return self._overloaded()

    def drain(self) -> None:
        """Run the waiting requests without waiting for more."""
        self._queue.drain()
        self._look_soon()

    @property
    def waiting(self) -> int:
        """The number of requests that wait."""
        return len(self._queue)

    @property
    def dropped(self) -> Counter[str]:
        """Requests that left the queue without being ranked, by reason: shed, expired, cancelled."""
        return self._queue.dropped.copy()

    def instruments(self) -> list[Instrument]:
        """Return the metrics."""
        return [
            self._size_histogram,
            self._wait_histogram,
            self._execution_histogram,
            Totals(definitions.QUEUE_DEPTH, lambda: {("ranking",): self.waiting}),
            Totals(definitions.BATCH_CUTS, lambda: {(reason,): n for reason, n in self._reasons.copy().items()}),
            Totals(definitions.BATCH_DROPPED, lambda: {(why,): n for why, n in self.dropped.items()}),
        ]

    def _look_soon(self) -> None:
        # At the end of this turn of the event loop: requests that arrived together with this one are in the queue then.
        if self._next_look is None and self._queue.has_slot:
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
        if self._costs.expect(len(cut.entries)) <= INLINE_S:
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
                began=began,
            )
            self._wait_histogram.observe(facts.slot_wait_s, "slot")
            self._wait_histogram.observe(facts.fill_wait_s, "fill")
            _settle(entry.item.answer, result, facts)
        self._note(len(cut.entries), cut.reason, execution_s)
        self._slot_freed = ended
        self._queue.free_slot()
        if len(self._queue):
            self._look_soon()

    def _note(self, size: int, reason: CutReason, execution_s: float) -> None:
        self._reasons[reason] += 1
        self._size_histogram.observe(size)
        self._execution_histogram.observe(execution_s)
        self._costs.note(size, execution_s)

    def _overloaded(self) -> OverloadedError:
        return OverloadedError(retry_after_s=self._drain_time_s())

    def _drain_time_s(self) -> float:
        batches, rest = divmod(len(self._queue), self.limits.max_batch_size)
        full_s, rest_s = self._costs.expect(self.limits.max_batch_size), self._costs.expect(rest) if rest else 0.0
        return max(1.0, batches * full_s + rest_s)


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
