"""The tables of the state machines: a service, a breaker, a broker's delivery, a revision, a rollout."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from chassis.hop import breaker
from chassis.server.lifecycle import LIFECYCLE
from chassis.transitions import IllegalTransitionError, advance
from knbroker import delivery
from kubeyaml.eventing import Trigger
from localkn import revisions
from tools.rollout.comparison import AnswerFigures, Comparison
from tools.rollout.decisions import CandidateLimits, Rollout

Table = Mapping[tuple[Any, Any], Any]

# By machine: its table, its first state, and the states that it may stay in for good.
MACHINES: dict[str, tuple[Table, Any, set[Any]]] = {
    "service": (LIFECYCLE, "new", {"stopped"}),
    "breaker": (breaker.TRANSITIONS, "closed", {"closed"}),
    "delivery": (delivery.TRANSITIONS, "to subscriber", {"dead"}),
    "revision": (
        revisions.TRANSITIONS,
        revisions.RevisionState.PENDING,
        {revisions.RevisionState.READY, revisions.RevisionState.FAILED},
    ),
}


def states_of(table: Table) -> set[Any]:
    return {state for state, _ in table} | set(table.values())


def reachable(table: Table, start: Any) -> set[Any]:
    found, left = {start}, [start]
    while left:
        state = left.pop()
        new = {after for (before, _), after in table.items() if before == state} - found
        found |= new
        left += new
    return found


@pytest.mark.parametrize("machine", MACHINES)
def test_every_state_can_be_reached(machine):
    """Each state of a table can be reached from the first state."""
    table, first, _ = MACHINES[machine]
    assert reachable(table, first) == states_of(table)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_state_leads_to_an_end(machine):
    """From each state, the machine can still reach a state in which it may stay."""
    table, _, ends = MACHINES[machine]
    for state in states_of(table):
        assert reachable(table, state) & ends, state


@pytest.mark.parametrize("machine", MACHINES)
def test_a_transition_that_is_not_in_the_table_raises(machine):
    """Each pair of a state and an event without a row is refused, and the message names both."""
    table, _, _ = MACHINES[machine]
    events = {event for _, event in table}
    missing = [(state, event) for state in states_of(table) for event in events if (state, event) not in table]
    assert missing
    for state, event in missing:
        with pytest.raises(IllegalTransitionError, match=f"{event} cannot happen in the state {state}"):
            advance(table, state, event)


def test_a_drain_or_a_stop_during_a_start_holds():
    """The end of a start leaves a draining service draining and a stopped service stopped."""
    for told in ("drain", "stop"):
        state = advance(LIFECYCLE, "starting", told)
        for ended in ("opened", "failed"):
            assert advance(LIFECYCLE, state, ended) is state


def test_a_stopped_service_stays_stopped():
    """No event leads out of the stopped state."""
    assert reachable(LIFECYCLE, "stopped") == {"stopped"}


def test_a_breaker_closes_only_through_a_probe():
    """Only a probe that succeeds closes an open breaker."""
    closing = [row for row, after in breaker.TRANSITIONS.items() if after == "closed"]
    assert closing == [("probing", "succeeded")]


def test_an_ended_probe_cannot_end_again():
    """A ticket is good for one report: a second one about the same probe raises."""
    opened = breaker.Breaker(breaker.BreakerLimits(least_calls=1, open_s=0.0))
    ticket = opened.admit()
    assert ticket is not None
    opened.note(ticket, success=False)
    probe = opened.admit()
    assert probe is not None
    opened.forget(probe)
    with pytest.raises(IllegalTransitionError, match="succeeded cannot happen in the state half-open"):
        opened.note(probe, success=True)


def test_a_dead_letter_is_not_tried():
    """A failure of a delivery that is dead is a bug of the broker."""
    dead = delivery.Delivery(1, "ns/t", failure=delivery.Failure("http://s/", 400), is_dead=True)
    trigger = Trigger("ns/t", "ns/default", "http://s/")
    with pytest.raises(IllegalTransitionError, match="give up cannot happen in the state dead"):
        delivery.after(delivery.Failure("http://s/", 400), dead, trigger, now=0.0)


def test_a_rollout_takes_its_steps_in_order():
    """A rollout refuses the outcome of a step that is not due, and any outcome after its end."""
    fine = AnswerFigures(requests=100, faults=0, error_rate=0.0, p50_ms=10.0, p99_ms=30.0)
    kept = Comparison(0, fine, fine, fine, fine, overlap=None, correlation=None, fault=None)
    rollout = Rollout([5, 100], CandidateLimits())
    with pytest.raises(IllegalTransitionError, match="a step with 5 % cannot follow"):
        rollout.after(replace(kept, share=5))
    for share in (0, 5, 100):
        rollout.after(replace(kept, share=share))
    with pytest.raises(IllegalTransitionError, match=r"Promote\(\) is due"):
        rollout.after(replace(kept, share=100))
