"""
Decides which requests form a batch, without any I/O.

The slot is taken first and the batch is cut last: while every slot is taken the queue grows, and when a slot becomes
free the waiting requests form a batch of at most `max_batch_size`. A lone request that finds a free slot therefore
never waits. A free slot waits for further requests only while some are known to be arriving, and at most `max_wait_s`.

`Batcher` runs a model on these decisions, `AsyncBatcher` calls to a hop or transactions of a store.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from msgspec import Struct

T = TypeVar("T")

CutReason = Literal["full", "slot_free", "window", "drain"]


@dataclass(frozen=True)
class BatchLimits:
    """
    The bounds of a batching queue.

    Attributes:
        max_batch_size: Most items in one batch.
        max_wait_s: Longest time that a free slot waits for requests that are arriving.
        max_queue_size: Most requests waiting; further ones are shed.
        slots: Most batches running at the same time.
    """

    max_batch_size: int = 32
    max_wait_s: float = 0.010
    max_queue_size: int = 256
    slots: int = 1


class QueueEntry(Struct, Generic[T], frozen=True):
    """An item in the queue, with its time of arrival and its deadline, both on the owner's clock."""

    item: T
    enqueued: float
    deadline: float


class Cut(Struct, Generic[T], frozen=True):
    """A batch to run now: its entries in order of arrival, and the reason for the cut."""

    entries: list[QueueEntry[T]]
    reason: CutReason


class Decision(Struct, Generic[T], frozen=True):
    """The next steps: answer the *expired*, run *cut* if it is set, else decide again at *wake_at* if that is set."""

    expired: list[QueueEntry[T]] = []
    cut: Cut[T] | None = None
    wake_at: float | None = None


class BatchQueue(Generic[T]):
    """
    The decision core: synchronous, with the time as an argument.

    Args:
        limits: The bounds.
        abandoned: Tells whether the caller of an item has left.

    Attributes:
        limits: As given. They may be replaced at any time; batches that run keep their slots.

    Invariants: first in, first out; at most `max_queue_size` entries wait; no cut while every slot is taken.
    """

    def __init__(self, limits: BatchLimits, *, abandoned: Callable[[T], bool]) -> None:
        self.limits = limits
        self._abandoned = abandoned
        self._waiting: deque[QueueEntry[T]] = deque()
        self._draining = False
        self._taken = 0
        self.dropped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def has_slot(self) -> bool:
        """Whether a batch may be cut now."""
        return self._taken < self.limits.slots

    @property
    def is_idle(self) -> bool:
        """Whether no batch runs and no request waits."""
        return not (self._taken or self._waiting)

    def take_slot(self) -> None:
        """Take a slot for work that was never in the queue. Call this only while `has_slot`."""
        self._taken += 1

    def put(self, entry: QueueEntry[T]) -> bool:
        """Queue *entry*, or return False if the queue is full of live entries."""
        if len(self._waiting) >= self.limits.max_queue_size:
            self._drop_abandoned()
        if len(self._waiting) >= self.limits.max_queue_size:
            self.dropped["shed"] += 1
            return False
        self._waiting.append(entry)
        return True

    def decide(self, now: float, *, arriving: int) -> Decision[T]:
        """Return the next steps at *now* while *arriving* requests are being read. A cut takes a slot."""
        if not self.has_slot:
            return Decision()
        self._drop_abandoned()
        expired = self._take_expired(now)
        if not self._waiting:
            return Decision(expired)
        reason = self._reason(now, arriving)
        if reason is None:
            return Decision(expired, wake_at=self._waiting[0].enqueued + self.limits.max_wait_s)
        size = min(len(self._waiting), self.limits.max_batch_size)
        self._taken += 1
        return Decision(expired, Cut([self._waiting.popleft() for _ in range(size)], reason))

    def free_slot(self) -> None:
        """Free the slot of a batch, or of other work, that has ended."""
        self._taken -= 1

    def drain(self) -> None:
        """Stop waiting for further requests."""
        self._draining = True

    def _reason(self, now: float, arriving: int) -> CutReason | None:
        if len(self._waiting) >= self.limits.max_batch_size:
            return "full"
        if self._draining:
            return "drain"
        if not arriving:
            return "slot_free"
        if now >= self._waiting[0].enqueued + self.limits.max_wait_s:
            return "window"
        return None

    def _drop_abandoned(self) -> None:
        kept = deque(entry for entry in self._waiting if not self._abandoned(entry.item))
        self.dropped["cancelled"] += len(self._waiting) - len(kept)
        self._waiting = kept

    def _take_expired(self, now: float) -> list[QueueEntry[T]]:
        expired = [entry for entry in self._waiting if entry.deadline <= now]
        if expired:
            self._waiting = deque(entry for entry in self._waiting if entry.deadline > now)
            self.dropped["expired"] += len(expired)
        return expired
