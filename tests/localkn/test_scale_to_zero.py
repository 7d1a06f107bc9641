"""When a revision scales to zero and back: decisions in virtual time."""

import pytest

from localkn.instances import Instance, InstanceState
from localkn.revisions import Revision
from tests.localkn.test_revisions import add, ready_revision, revision


def idle(made: Revision, *, since: int, until: int) -> None:
    """Let seconds without load pass, with a decision every two seconds."""
    for second in range(since, until + 1):
        if made.ready:
            made.measure(second, concurrency=0.0, requests=0.0)
        if second % 2 == 0:
            made.decide(second)


def starting(to: Revision, *, at: float) -> Instance:
    instance = add(to, InstanceState.STARTING)
    instance.started_at = at
    return instance


def at_zero(**annotations: str) -> Revision:
    """Return a revision that was ready at 0 and has scaled to zero by 100."""
    made = ready_revision(**annotations)
    idle(made, since=1, until=100)
    assert list(made.plan(100).stop) == made.instances
    made.instances.clear()
    return made


def test_the_last_instance_stops_after_an_idle_window() -> None:
    """An instance that has been ready for a stable window stops as soon as the window holds no request."""
    made = ready_revision()
    made.measure(30, concurrency=1.0, requests=1.0)
    idle(made, since=31, until=88)
    assert made.wanted(88) == 1
    idle(made, since=89, until=92)
    assert made.wanted(92) == 0


def test_a_minimum_keeps_instances() -> None:
    """A revision with a minimum never scales to zero, and its requests are never held."""
    made = ready_revision(min_scale="1")
    idle(made, since=1, until=200)
    assert (made.wanted(200), made.scales_to_zero, made.is_held) == (1, False, False)
    made.instances.clear()
    assert not made.is_held


def test_a_fresh_instance_stays_for_a_window() -> None:
    """An instance that became ready a moment ago stays for a stable window, even without a further request."""
    made = at_zero(window="10s")
    made.wake(200.0)
    add(made, ready_at=203.0)
    idle(made, since=204, until=212)
    assert made.wanted(212.9) == 1
    idle(made, since=213, until=214)
    assert made.wanted(214) == 0


def test_the_retention_period_keeps_the_last_instance() -> None:
    """The last instance stays for the retention period after the autoscaler has decided on zero."""
    made = ready_revision(scale_to_zero_pod_retention_period="45s")
    made.measure(30, concurrency=1.0, requests=1.0)
    idle(made, since=31, until=140)
    assert made.wanted(134.9) == 1
    assert made.wanted(135.0) == 0


@pytest.mark.parametrize("metric", ["concurrency", "rps"])
def test_a_waiting_request_starts_an_instance_immediately(metric: str) -> None:
    """The first request that waits leads to a decision without the next tick."""
    made = at_zero(metric=metric)
    assert (made.wanted(200.0), made.is_held) == (0, True)
    made.wake(200.3)
    assert made.plan(200.3).start == 1


def test_many_waiting_requests_start_several_instances() -> None:
    """Requests that wait in the activator count like requests in flight."""
    made = at_zero(target="10", target_utilization_percentage="100", max_scale="5")
    made.wake(200.0)
    starting(made, at=200.0)
    for second in range(201, 206):
        made.measure(second, concurrency=39.0, requests=0.0)
    made.decide(206)
    assert made.wanted(206) == 4


def test_a_starting_instance_is_not_stopped_by_silence() -> None:
    """An instance that starts goes on until it is ready, even if every caller has left."""
    made = at_zero(window="6s")
    made.wake(200.0)
    starting(made, at=200.0)
    idle(made, since=201, until=240)
    assert (made.wanted(240), list(made.plan(240).stop)) == (1, [])


def test_a_start_that_fails_three_times_is_reported_once() -> None:
    """The reason is given once; then no instance starts until another request arrives, whose first failure counts."""
    made, reasons = at_zero(), []
    made.wake(200.0)
    for now in (201.0, 202.0, 203.0):
        instance = starting(made, at=now)
        instance.exit_reason = "exit code 3"
        made.ended(instance, now)
        reasons.append(made.take_start_failure())
    assert reasons == [None, None, "revision r-00001 cannot start: exit code 3"]
    assert (made.take_start_failure(), made.failure, made.plan(300.0).start) == (None, None, 0)
    made.wake(300.0)
    assert made.plan(300.0).start == 1


def test_a_start_that_hangs_ends_at_the_progress_deadline() -> None:
    """An instance that is not ready in time stops, and the revision returns to zero."""
    made = at_zero()
    made.wake(200.0)
    hung = starting(made, at=200.0)
    made.settle(260.0)
    assert made.take_start_failure() is None
    made.settle(260.1)
    assert made.take_start_failure() == "revision r-00001 cannot start: not ready within 60 s"
    assert list(made.plan(260.1).stop) == [hung]


def test_a_revision_that_was_never_ready_is_not_held() -> None:
    """Requests wait only for a revision that could serve before."""
    assert not revision().is_held
