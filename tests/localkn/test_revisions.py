"""What a revision decides: its number of instances, its readiness and its failure."""

import pytest

from kubeyaml.templates import Template
from localkn.instances import Instance, State
from localkn.revisions import Revision


async def nothing(_: Instance) -> None:
    """No request is ever left."""


def revision(**annotations: str) -> Revision:
    given = {f"autoscaling.knative.dev/{name.replace('_', '-')}": value for name, value in annotations.items()}
    body = {"metadata": {"annotations": given}, "spec": {"containers": [{"image": "x"}]}}
    return Revision("r-00001", 1, body, Template.from_body(body), created_at=0.0)


def add(to: Revision, state: State = State.READY, *, ready_at: float | None = 0.0) -> Instance:
    """Give a revision an instance without a process."""
    number = len(to.instances)
    instance = Instance(f"i{number}", 8000 + number, to.template, changed=lambda: None, drained=nothing)
    instance.state, instance.ready_at = state, ready_at if state is State.READY else None
    to.instances.append(instance)
    return instance


def made_ready(**annotations: str) -> Revision:
    made = revision(**annotations)
    for _ in range(made.first_scale):
        add(made)
    made.settle(1.0)
    assert made.was_ready
    return made


def test_a_new_revision_starts_as_many_as_make_it_ready() -> None:
    """The larger of min-scale and initial-scale, one at least, even above max-scale."""
    assert revision().plan(0).start == 1
    assert revision(min_scale="2").plan(0).start == 2
    assert revision(min_scale="2", initial_scale="4", max_scale="3").plan(0).start == 4


def test_readiness_needs_all_first_instances() -> None:
    """Half of the first instances do not make a revision ready."""
    made = revision(min_scale="2")
    add(made)
    add(made, State.STARTING)
    made.settle(1.0)
    pending = [made.pending]
    made.instances[1].state = State.READY
    made.settle(2.0)
    assert [*pending, made.pending, made.failure] == [True, False, None]


def test_the_progress_deadline_fails_a_revision() -> None:
    """Past the deadline it wants no instance; being ready before, it never fails."""
    late, ready = revision(), made_ready()
    add(late, State.STARTING)
    for each in (late, ready):
        each.settle(60.5)
    assert late.failure == "not ready within 60 s"
    assert late.plan(61).stop == late.instances
    assert ready.failure is None


def test_instances_that_end_at_once_fail_a_revision_soon() -> None:
    """Three in a row are enough; the first replacement starts immediately, each further one later than the one before."""
    made, delays = revision(), []
    for now in (10.0, 20.0, 30.0):
        instance = add(made, State.STARTING)
        instance.exit_reason = "exit code 1"
        made.ended(instance, now)
        delays.append(made.retry_at - now)
    assert delays == [0.0, 0.25, 0.5]
    assert made.failure == "its instances end before they are ready: exit code 1"
    assert made.plan(100).start == 0


def test_a_crash_after_a_steady_time_is_mended_at_once() -> None:
    """Only crashes in a row are put off, and never by more than a second once the revision has been ready."""
    made = made_ready()
    made.ended(made.instances[0], now=100.0)
    assert made.plan(100.0).start == 1
    for now in range(200, 210):
        made.ended(add(made, ready_at=now - 1.0), now=float(now))
    assert made.failure is None
    assert made.plan(209.9).start == 0
    assert made.plan(210.1).start == 1


def test_an_instance_that_was_told_to_go_is_no_crash() -> None:
    """Its end puts nothing off."""
    made = made_ready(min_scale="2")
    made.instances[0].stop()
    made.ended(made.instances[0], now=5.0)
    assert made.plan(5.0).start == 1


def test_the_last_to_be_ready_go_first() -> None:
    """Not ready ones before all others, as a ReplicaSet does."""
    made = made_ready()
    old, new, starting = add(made, ready_at=2.0), add(made, ready_at=9.0), add(made, State.STARTING)
    made.desired = 2
    assert list(made.plan(10.0).stop) == [starting, new]
    assert old not in made.plan(10.0).stop


def test_load_is_followed_within_the_bounds() -> None:
    """Recorded concurrency becomes instances; without traffic the minimum is forgotten, but not at once."""
    made = made_ready(min_scale="2", max_scale="5", target="3", target_utilization_percentage="100")
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


def test_the_metric_may_be_requests_per_second() -> None:
    """With metric rps arrivals decide, whatever the concurrency."""
    made = made_ready(metric="rps", target="10", target_utilization_percentage="100")
    for second in range(1, 4):
        made.measure(second, concurrency=0.5, requests=31.0)
    made.decide(3)
    assert made.wanted(3) == 4


def test_without_data_nothing_changes() -> None:
    """A decision on nothing leaves the number as it was."""
    made = made_ready(min_scale="3")
    made.decide(50)
    assert made.wanted(50) == 3


@pytest.mark.parametrize("state", [State.STARTING, State.UNREADY, State.DRAINING])
def test_only_ready_instances_count(state: State) -> None:
    """One that starts, fails its probe or drains takes no requests."""
    made = revision()
    add(made, state)
    made.settle(1.0)
    assert made.pending
    assert list(made.ready) == []


def test_a_superseded_revision_that_never_was_ready_is_given_up() -> None:
    """Without traffic and never ready it wants nothing."""
    made = revision()
    made.reach(reachable=False, now=3.0)
    assert made.wanted(3.0) == 0


def test_a_fixed_scale_is_not_scaled() -> None:
    """With --direct there is one instance, whatever the annotations and the load say."""
    body = {
        "metadata": {"annotations": {"autoscaling.knative.dev/min-scale": "3"}},
        "spec": {"containers": [{"image": "x"}]},
    }
    made = Revision("r-00001", 1, body, Template.from_body(body), created_at=0.0, fixed_scale=1)
    add(made)
    made.settle(0.0)
    made.desired = 5
    assert (made.was_ready, made.wanted(1.0)) == (True, 1)
