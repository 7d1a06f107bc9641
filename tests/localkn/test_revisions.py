"""A revision's number of instances, readiness and failure."""

import pytest

from kubeyaml.templates import Template
from localkn.instances import Instance, InstanceState
from localkn.revisions import Revision


async def nothing(_: Instance) -> None:
    """Report that no request is left."""


def revision(**annotations: str) -> Revision:
    given = {f"autoscaling.knative.dev/{name.replace('_', '-')}": value for name, value in annotations.items()}
    body = {"metadata": {"annotations": given}, "spec": {"containers": [{"image": "x"}]}}
    return Revision("r-00001", 1, body, Template.from_body(body), created_at=0.0)


def add(to: Revision, state: InstanceState = InstanceState.READY, *, ready_at: float | None = 0.0) -> Instance:
    """Give a revision an instance without a process."""
    number = len(to.instances)
    instance = Instance(f"i{number}", 8000 + number, to.template, changed=lambda: None, drained=nothing)
    instance.state, instance.ready_at = state, ready_at if state is InstanceState.READY else None
    to.instances.append(instance)
    return instance


def ready_revision(**annotations: str) -> Revision:
    made = revision(**annotations)
    for _ in range(made.first_scale):
        add(made)
    made.settle(1.0)
    assert made.was_ready
    return made


def test_a_new_revision_starts_its_first_instances() -> None:
    """The number is the larger of min-scale and initial-scale, and at least one, even above max-scale."""
    assert revision().plan(0).start == 1
    assert revision(min_scale="2").plan(0).start == 2
    assert revision(min_scale="2", initial_scale="4", max_scale="3").plan(0).start == 4


def test_readiness_requires_all_first_instances() -> None:
    """A revision with half of its first instances is not ready."""
    made = revision(min_scale="2")
    add(made)
    add(made, InstanceState.STARTING)
    made.settle(1.0)
    pending = [made.pending]
    made.instances[1].state = InstanceState.READY
    made.settle(2.0)
    assert [*pending, made.pending, made.failure] == [True, False, None]


def test_the_progress_deadline_fails_a_revision() -> None:
    """A revision that misses the deadline wants no instances; one that was ready before does not fail."""
    late, ready = revision(), ready_revision()
    add(late, InstanceState.STARTING)
    for each in (late, ready):
        each.settle(60.5)
    assert late.failure == "not ready within 60 s"
    assert late.plan(61).stop == late.instances
    assert ready.failure is None


def test_repeated_crashes_at_start_fail_a_revision() -> None:
    """Three crashes in a row fail the revision; the first replacement starts immediately, and each further one later."""
    made, delays = revision(), []
    for now in (10.0, 20.0, 30.0):
        instance = add(made, InstanceState.STARTING)
        instance.exit_reason = "exit code 1"
        made.ended(instance, now)
        delays.append(made.retry_at - now)
    assert delays == [0.0, 0.25, 0.5]
    assert made.failure == "its instances end before they are ready: exit code 1"
    assert made.plan(100).start == 0


def test_a_crash_after_stable_operation_is_repaired_immediately() -> None:
    """Only repeated crashes delay a restart, and by at most one second if the revision was ready before."""
    made = ready_revision()
    made.ended(made.instances[0], now=100.0)
    assert made.plan(100.0).start == 1
    for now in range(200, 210):
        made.ended(add(made, ready_at=now - 1.0), now=float(now))
    assert made.failure is None
    assert made.plan(209.9).start == 0
    assert made.plan(210.1).start == 1


def test_a_stopped_instance_is_not_a_crash() -> None:
    """The end of an instance that was told to stop delays no start."""
    made = ready_revision(min_scale="2")
    made.instances[0].stop()
    made.ended(made.instances[0], now=5.0)
    assert made.plan(5.0).start == 1


def test_the_youngest_instances_stop_first() -> None:
    """Instances that are not ready stop before all others, as in a ReplicaSet."""
    made = ready_revision()
    old, new, starting = add(made, ready_at=2.0), add(made, ready_at=9.0), add(made, InstanceState.STARTING)
    made.desired = 2
    assert list(made.plan(10.0).stop) == [starting, new]
    assert old not in made.plan(10.0).stop


def test_instances_follow_the_load_within_bounds() -> None:
    """The concurrency determines the instances; without traffic the revision drops below its minimum after a delay."""
    made = ready_revision(min_scale="2", max_scale="5", target="3", target_utilization_percentage="100")
    for second in range(1, 11):
        made.measure(second, concurrency=40.0, requests=100.0)
        made.decide(second)
    assert (made.wanted(10), made.plan(10).start) == (5, 3)
    assert made.decision.panicking
    made.reach(reachable=False, now=10.0)
    for second in range(11, 150):
        made.measure(second, concurrency=0.0, requests=0.0)
        made.decide(second)
    assert made.desired == 0
    assert (made.wanted(99.9), made.wanted(150)) == (1, 0)
    made.reach(reachable=True, now=151.0)
    assert made.wanted(151) == 2


def test_requests_per_second_can_be_the_metric() -> None:
    """With metric rps the arrivals decide, and the concurrency does not matter."""
    made = ready_revision(metric="rps", target="10", target_utilization_percentage="100")
    for second in range(1, 4):
        made.measure(second, concurrency=0.5, requests=31.0)
    made.decide(3)
    assert made.wanted(3) == 4


def test_no_data_changes_nothing() -> None:
    """A decision without data keeps the number of instances."""
    made = ready_revision(min_scale="3")
    made.decide(50)
    assert made.wanted(50) == 3


@pytest.mark.parametrize("state", [InstanceState.STARTING, InstanceState.UNREADY, InstanceState.DRAINING])
def test_only_ready_instances_count(state: InstanceState) -> None:
    """An instance that starts, fails its probe or drains gets no requests."""
    made = revision()
    add(made, state)
    made.settle(1.0)
    assert made.pending
    assert list(made.ready) == []


def test_a_superseded_revision_that_was_never_ready_stops() -> None:
    """A revision without traffic that was never ready wants no instances."""
    made = revision()
    made.reach(reachable=False, now=3.0)
    assert made.wanted(3.0) == 0


def test_a_fixed_scale_is_not_scaled() -> None:
    """With --direct a revision has one instance, and annotations and load do not matter."""
    body = {
        "metadata": {"annotations": {"autoscaling.knative.dev/min-scale": "3"}},
        "spec": {"containers": [{"image": "x"}]},
    }
    made = Revision("r-00001", 1, body, Template.from_body(body), created_at=0.0, fixed_scale=1)
    add(made)
    made.settle(0.0)
    made.desired = 5
    assert (made.was_ready, made.wanted(1.0)) == (True, 1)
