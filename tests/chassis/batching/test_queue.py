import math

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chassis.batching.queue import BatchLimits, BatchQueue, QueueEntry

NEVER = math.inf


def enqueue(queue: BatchQueue[str], *items: str, at: float = 0.0, deadline: float = NEVER) -> None:
    for item in items:
        assert queue.put(QueueEntry(item, at, deadline))


def queue_of(*items: str, size: int = 4, room: int = 8) -> BatchQueue[str]:
    queue: BatchQueue[str] = BatchQueue(
        BatchLimits(max_batch_size=size, max_wait_s=0.01, max_queue_size=room), abandoned=lambda item: item.islower()
    )
    enqueue(queue, *items)
    return queue


def cut(queue: BatchQueue[str], now: float = 0.0, arriving: int = 0) -> tuple[str, str] | None:
    decision = queue.decide(now, arriving=arriving)
    return ("".join(entry.item for entry in decision.cut.entries), decision.cut.reason) if decision.cut else None


class TestQueue:
    """The queue that decides when to cut a batch, without I/O."""

    def test_a_single_request_is_cut_immediately(self):
        """One request is a batch when a slot is free and nothing is arriving."""
        assert cut(queue_of("A")) == ("A", "slot_free")

    def test_an_empty_queue_asks_for_no_wake_up(self):
        """An empty queue cuts nothing and does not ask to be woken."""
        assert queue_of().decide(0.0, arriving=3).wake_at is None

    def test_the_batch_grows_while_the_slot_is_taken(self):
        """Requests that arrive during a batch go together into the next batch, in order of arrival."""
        queue = queue_of("A")
        assert cut(queue) == ("A", "slot_free")
        enqueue(queue, "B", "C")
        assert cut(queue) is None
        enqueue(queue, "D")
        queue.free_slot()
        assert cut(queue) == ("BCD", "slot_free")

    def test_a_full_batch_leaves_the_remaining_requests(self):
        """A batch is never larger than the limit; the remaining requests start the next batch."""
        queue = queue_of(*"ABCDEF")
        assert cut(queue, arriving=1) == ("ABCD", "full")
        queue.free_slot()
        assert cut(queue) == ("EF", "slot_free")

    def test_a_free_slot_waits_for_arriving_requests_within_the_window(self):
        """While requests are still being read, the oldest request waits at most for the window."""
        queue = queue_of("A")
        assert cut(queue, 0.004, arriving=1) is None
        assert queue.decide(0.004, arriving=1).wake_at == 0.01
        assert cut(queue, 0.01, arriving=1) == ("A", "window")

    def test_several_slots_run_several_batches(self):
        """With two slots, the third batch waits."""
        queue: BatchQueue[str] = BatchQueue(BatchLimits(max_batch_size=1, slots=2), abandoned=str.islower)
        enqueue(queue, "A", "B", "C")
        assert [cut(queue), cut(queue), cut(queue)] == [("A", "full"), ("B", "full"), None]
        queue.free_slot()
        assert cut(queue) == ("C", "full")

    def test_a_draining_queue_does_not_wait(self):
        """A draining queue cuts what it holds, even while requests are arriving."""
        queue = queue_of("A")
        queue.drain()
        assert cut(queue, arriving=5) == ("A", "drain")

    def test_cancelled_and_expired_requests_are_not_cut(self):
        """Before a cut the queue removes cancelled entries and hands back expired ones."""
        queue = queue_of("A", "b")
        enqueue(queue, "C", deadline=1.0)
        enqueue(queue, "D", deadline=2.0)
        decision = queue.decide(1.0, arriving=0)
        assert [entry.item for entry in decision.expired] == ["C"]
        assert decision.cut is not None
        assert [entry.item for entry in decision.cut.entries] == ["A", "D"]
        assert queue.dropped == {"cancelled": 1, "expired": 1}

    def test_a_full_queue_refuses_requests(self):
        """A full queue refuses a request, unless one of its entries has been cancelled."""
        queue = queue_of(*"ABCDEFGH")
        assert not queue.put(QueueEntry("I", 0.0, NEVER))
        assert queue.dropped["shed"] == 1
        queue = queue_of(*"ABCdEFGH")
        assert queue.put(QueueEntry("I", 0.0, NEVER))


class Batching(RuleBasedStateMachine):
    """Arrivals, cancellations, deadlines and batches in any order, on a clock that the test moves."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.cancelled: set[int] = set()
        self.limits = BatchLimits(max_batch_size=3, max_wait_s=0.01, max_queue_size=7)
        self.queue: BatchQueue[int] = BatchQueue(self.limits, abandoned=self.cancelled.__contains__)
        self.accepted: dict[int, float] = {}
        self.shed: set[int] = set()
        self.ran: list[int] = []
        self.expired: list[int] = []
        self.running = False

    @rule(patience=st.sampled_from([0.0, 0.005, 0.02, NEVER]))
    def arrive(self, patience: float) -> None:
        number = len(self.accepted) + len(self.shed)
        if self.queue.put(QueueEntry(number, self.now, self.now + patience)):
            self.accepted[number] = self.now + patience
        else:
            live = self.accepted.keys() - self.cancelled - {*self.ran, *self.expired}
            assert len(live) >= self.limits.max_queue_size
            self.shed.add(number)

    @rule(data=st.data())
    @precondition(lambda self: self.accepted)
    def cancel(self, data: st.DataObject) -> None:
        self.cancelled.add(data.draw(st.sampled_from(sorted(self.accepted))))

    @rule(seconds=st.sampled_from([0.001, 0.01, 1.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(arriving=st.integers(0, 2))
    def decide(self, arriving: int) -> None:
        oldest = min((n for n in self.accepted if n not in {*self.ran, *self.expired, *self.cancelled}), default=None)
        decision = self.queue.decide(self.now, arriving=arriving)
        for entry in decision.expired:
            assert entry.deadline <= self.now
            self.expired.append(entry.item)
        if decision.cut:
            assert not self.running
            batch = [entry.item for entry in decision.cut.entries]
            assert 1 <= len(batch) <= self.limits.max_batch_size
            assert not self.cancelled & set(batch)
            assert all(self.accepted[item] > self.now for item in batch)
            self.ran += batch
            self.running = True
        elif not self.running and oldest is not None and self.accepted[oldest] > self.now:
            assert arriving
            assert decision.wake_at is not None
            assert decision.wake_at > self.now

    @rule()
    @precondition(lambda self: self.running)
    def finish(self) -> None:
        self.running = False
        self.queue.free_slot()

    @invariant()
    def answered_once_and_in_order(self) -> None:
        answers = self.ran + self.expired
        assert len(answers) == len(set(answers))
        assert self.ran == sorted(self.ran)
        assert len(self.queue) <= self.limits.max_queue_size

    def teardown(self) -> None:
        """Run the queue until it is empty: every accepted entry ran, expired or was cancelled."""
        while len(self.queue) or self.running:
            if self.running:
                self.finish()
            self.decide(arriving=0)
        assert self.accepted.keys() == {*self.ran, *self.expired} | (self.cancelled - {*self.ran, *self.expired})


TestBatchingProperties = Batching.TestCase
