"""Snapshots turned into the figures of the charts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kndashboard.columns import WIDTH
from kndashboard.history import SnapshotHistory
from kndashboard.ranges import RANGES, history
from kndashboard.recorder import SnapshotRecorder
from kndashboard.ring import RingFile
from kndashboard.snapshots import Snapshot, Watcher
from tests.clock import Clock
from tests.kndashboard.seen import POD, revision, service, snapshot, status

BEGIN = 1_800_000_000.0
RUNNING = status(rank_items=service(revision("rank-items-00001", "ready", concurrency=6.0)))


def exposed(*, requests: int, failed: int = 0, slow: int = 0, cpu: float = 0.0, batches: int = 0) -> str:
    ok = requests - failed
    return "\n".join([
        f'recsys_requests_total{{status="200"}} {ok}', f'recsys_requests_total{{status="503"}} {failed}',
        f'recsys_request_duration_seconds_bucket{{le="0.001"}} {requests - slow}',
        f'recsys_request_duration_seconds_bucket{{le="0.0025"}} {requests}',
        f'recsys_request_duration_seconds_bucket{{le="+Inf"}} {requests}',
        f'recsys_degraded_total{{hop="features"}} {failed}',
        f'recsys_batch_size_bucket{{le="4.0"}} {batches}', f'recsys_batch_size_bucket{{le="+Inf"}} {batches}',
        f"recsys_batch_size_sum {4 * batches}", f"process_cpu_seconds_total {cpu}",
        f"process_resident_memory_bytes {100 * 2**20}", "",
    ])  # fmt: skip


class Recording:
    """A recorder whose snapshots and time a test gives."""

    def __init__(self, path: Path) -> None:
        self.wall, self.ring = Clock(BEGIN), RingFile(path, width=WIDTH)
        self.recorder = SnapshotRecorder(SnapshotHistory(Watcher(dict, None)), self.ring, clock=self.wall)  # type: ignore[arg-type]

    def see(self, seen: Snapshot) -> None:
        self.wall.now = BEGIN + seen.at
        self.recorder.record(seen)

    def range(self, minutes: int = 5, **given: Any) -> dict[str, Any]:
        return history(self.ring, RANGES[minutes], now=self.wall.now, **given)


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    made = Recording(tmp_path / "history.ring")
    yield made
    made.ring.close()


def newest(shown: dict[str, Any], name: str = "rank-items") -> dict[str, Any]:
    return {key: values[-1] for key, values in shown["services"][name].items()}


def test_a_second_becomes_the_last_point_of_every_chart(recording: Recording):
    """Rates, quantiles, errors, degraded answers, scale, load, batches, CPU and memory follow from two snapshots."""
    recording.see(snapshot(0, RUNNING, {POD: exposed(requests=100, cpu=5.0)}))
    recording.see(snapshot(1, RUNNING, {POD: exposed(requests=200, failed=2, slow=2, cpu=5.5, batches=3)}))
    shown = newest(recording.range())
    assert shown == {
        "rate": 100, "p50": pytest.approx(0.755), "p99": pytest.approx(1.75), "errors": 2, "degraded": 2,
        "ready": 1, "desired": 2, "in_flight": 6, "target": 3, "batch": 4, "batch_p99": 4,
        "cpu": 0.5, "memory": 100,
    }  # fmt: skip


def test_a_range_has_every_point_and_a_page_asks_for_the_newest_alone(recording: Recording):
    """A range has one value for each step, None where nothing was recorded, and `after` leaves out the known points."""
    recording.see(snapshot(0, RUNNING, {POD: exposed(requests=0)}))
    for second in range(1, 21):
        recording.see(snapshot(second, RUNNING, {POD: exposed(requests=10 * second)}))
    whole = recording.range()
    rate = whole["services"]["rank-items"]["rate"]
    assert (len(rate), whole["points"], whole["step"]) == (150, 150, 2)
    assert rate[:139] == [None] * 139
    assert rate[140:] == [10] * 10
    part = recording.range(after=BEGIN + 17)
    assert (part["begin"], part["points"], part["length"]) == (BEGIN + 16, 3, 150)
    assert part["services"]["rank-items"]["rate"] == [10, 10, 10]
    for minutes in RANGES:
        assert newest(recording.range(minutes))["rate"] == 10


def test_an_instance_that_does_not_answer_once_is_not_counted_twice(recording: Recording):
    """Its requests are counted when it answers again, and only those since its last answer."""
    recording.see(snapshot(0, RUNNING, {POD: exposed(requests=1000)}))
    recording.see(snapshot(1, RUNNING, {}))
    recording.see(snapshot(2, RUNNING, {POD: exposed(requests=1006)}))
    assert recording.range()["services"]["rank-items"]["rate"][-2:] == [0, 6]


def test_a_pause_makes_no_peak(recording: Recording):
    """The counts of a pause, such as a suspended computer, are left out."""
    recording.see(snapshot(0, RUNNING, {POD: exposed(requests=0)}))
    recording.see(snapshot(60, RUNNING, {POD: exposed(requests=900)}))
    assert recording.range()["services"] == {}
    recording.see(snapshot(61, RUNNING, {POD: exposed(requests=901)}))
    assert newest(recording.range())["rate"] == 1


def test_a_revision_without_traffic_is_not_counted(recording: Recording):
    """Instances, load and target are those of the revisions that have traffic."""
    old = revision("rank-items-00001", "ready", "ready", traffic_percent=0)
    seen = status(rank_items=service(old, revision("rank-items-00002", "ready")))
    recording.see(snapshot(0, seen))
    recording.see(snapshot(1, seen))
    shown = newest(recording.range())
    assert (shown["ready"], shown["desired"], shown["target"], shown["in_flight"]) == (1, 2, 3, 2.5)
    assert "cpu" not in shown
    assert shown["rate"] == 4


def test_deployments_are_marked(recording: Recording):
    """A start, a new revision, its failure and a change of the traffic are marks; a restart of the dashboard is not."""
    one, two = revision("rank-items-00001", "ready"), revision("rank-items-00002", "ready", traffic_percent=0)
    failed = two | {"failure": "exit status 1"}
    steps = [[one], [one, two], [one, failed], [one | {"traffic_percent": 90}, failed | {"traffic_percent": 10}]]
    for second, revisions in enumerate(steps):
        recording.see(snapshot(second, status(rank_items=service(*revisions))))
    recording.recorder = SnapshotRecorder(SnapshotHistory(Watcher(dict, None)), recording.ring, clock=recording.wall)  # type: ignore[arg-type]
    recording.see(snapshot(4, status(rank_items=service(*steps[-1]))))
    assert [(mark["at"] - BEGIN, mark["text"]) for mark in recording.range()["marks"]] == [
        (0, "the pipeline starts"),
        (1, "rank-items-00002 was created"),
        (2, "rank-items-00002 failed: exit status 1"),
        (3, "rank-items: traffic to rank-items-00001 90 %, rank-items-00002 10 %"),
    ]
