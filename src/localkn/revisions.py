"""
One revision: how many instances it wants, which ones to stop, when it is ready and when it has failed.

Decisions only; the platform carries them out. Times are seconds of one clock that never falls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from chassis.transitions import advance
from kubeyaml.templates import Template
from localkn.instances import Instance, InstanceState
from localkn.kpa import Autoscaler, ScaleDecision, Settings
from localkn.kpa.windows import LinearWindow

_PROGRESS_DEADLINE_S = 60
"""Knative waits 600 s; on this machine nothing has to be pulled or scheduled."""
_FAILED_STARTS = 3
"""Number of failed starts after which a revision fails before its deadline."""
_STEADY_S = 10.0
_GRACE_S = 30.0
"""Knative's scale-to-zero-grace-period: how long the last instance stays after a stable window without traffic."""


class RevisionState(StrEnum):
    """The state of a revision."""

    PENDING = "pending"
    READY = "ready"
    FAILED = "failed"


class RevisionEvent(StrEnum):
    """An event that changes the state of a revision."""

    SCALED = "enough instances are ready"
    LATE = "the progress deadline is over"
    CRASHED = "too many instances ended before they were ready"


TRANSITIONS: Final[Mapping[tuple[RevisionState, RevisionEvent], RevisionState]] = {
    (RevisionState.PENDING, RevisionEvent.SCALED): RevisionState.READY,
    (RevisionState.PENDING, RevisionEvent.LATE): RevisionState.FAILED,
    (RevisionState.PENDING, RevisionEvent.CRASHED): RevisionState.FAILED,
}
"""A revision that was ready once, or has failed, stays in that state."""


@dataclass(frozen=True, slots=True)
class InstancePlan:
    """Instances to start and to stop now."""

    start: int = 0
    stop: Sequence[Instance] = ()


@dataclass(eq=False)
class Revision:
    """
    A template of a Service with its instances.

    Args:
        fixed_scale: Number of instances at any load; None to scale with the load.
    """

    name: str
    generation: int
    body: Mapping[str, Any]
    template: Template
    created_at: float
    fixed_scale: int | None = None
    instances: list[Instance] = field(default_factory=list)
    state: RevisionState = RevisionState.PENDING
    failure: str | None = None
    decision: ScaleDecision = field(default_factory=ScaleDecision)
    desired: int = 1
    retry_at: float = 0.0
    _failed_starts: int = 0
    _unreachable_since: float | None = None
    _idle_since: float | None = None
    _start_failure: str | None = None

    def __post_init__(self) -> None:
        self.settings = Settings.from_annotations(
            self.template.annotations, container_concurrency=self.template.container_concurrency
        )
        self.autoscaler = Autoscaler(self.settings)
        self.concurrency, self.arrivals = LinearWindow(6), LinearWindow(6)
        self.desired = self.first_scale

    @property
    def first_scale(self) -> int:
        """Number of ready instances that make the revision ready."""
        return self.fixed_scale or max(1, self.settings.initial_scale, self.settings.min_scale)

    @property
    def _deadline_s(self) -> int:
        return self.template.progress_deadline_s or _PROGRESS_DEADLINE_S

    @property
    def scales_to_zero(self) -> bool:
        """Whether it may have no instance while traffic leads to it."""
        return self.fixed_scale is None and self.settings.min_scale == 0

    @property
    def is_held(self) -> bool:
        """Whether its requests wait in the activator now."""
        return self.scales_to_zero and self.was_ready and not self.ready

    @property
    def ready(self) -> Sequence[Instance]:
        """The instances that take requests."""
        return [
            instance for instance in self.instances if instance.state is InstanceState.READY and not instance.stopping
        ]

    @property
    def pending(self) -> bool:
        """Whether it may still become ready for the first time."""
        return self.state is RevisionState.PENDING

    @property
    def was_ready(self) -> bool:
        """Whether enough instances have been ready at the same time; traffic may move to the revision."""
        return self.state is RevisionState.READY

    def reach(self, *, reachable: bool, now: float) -> None:
        """Record whether any traffic target leads to this revision."""
        self.autoscaler.reachable = reachable
        if reachable:
            self._unreachable_since = None
        elif self._unreachable_since is None:
            self._unreachable_since = now

    def measure(self, now: float, *, concurrency: float, requests: float) -> None:
        """Record what all its instances reported for the last second."""
        self.autoscaler.record(now, requests if self.settings.metric == "rps" else concurrency)
        self.concurrency.record(int(now), concurrency)
        self.arrivals.record(int(now), requests)

    def decide(self, now: float) -> None:
        """Let the autoscaler decide; due every two seconds."""
        self.decision = self.autoscaler.decide(now, ready=len(self.ready))
        if self.was_ready and self.decision.valid:
            self.desired = self.settings.bounded(self.decision.desired, reachable=self.autoscaler.reachable)
            if self.desired:
                self._idle_since = None
            elif self._idle_since is None:
                self._idle_since = now

    def wake(self, now: float) -> None:
        """Decide immediately, because a first request waits in the activator."""
        self.measure(now, concurrency=1.0, requests=1.0)
        self.decide(now)

    def settle(self, now: float) -> None:
        """Become ready with enough ready instances, or fail past the progress deadline."""
        if self.is_held and any(self._is_late(instance, now) for instance in self.instances):
            self._fail_start(f"not ready within {self._deadline_s} s")
        if not self.pending:
            return
        if len(self.ready) >= self.first_scale:
            self._note(RevisionEvent.SCALED)
        elif now - self.created_at > self._deadline_s:
            self._note(RevisionEvent.LATE)
            self.failure = f"not ready within {self._deadline_s} s"

    def wanted(self, now: float) -> int:
        """Number of instances there should be at *now*."""
        if self.state is RevisionState.FAILED:
            return 0
        if self._unreachable_since is None:
            lasting = self.settings.bounded(self.desired, reachable=True)
            return self.first_scale if self.pending or self.fixed_scale else max(lasting, self._least(now))
        if self.pending:
            return 0
        retention_s = self.settings.stable_window_s + _GRACE_S
        return max(self.desired, 1 if now - self._unreachable_since < retention_s else 0)

    def _least(self, now: float) -> int:
        """Return 1 until the last instance may stop: idle, and ready for a stable window and the retention period."""
        if not self.scales_to_zero or any(self._is_starting(instance, now) for instance in self.instances):
            return 1
        if not self.ready:
            return 0
        ready_at = min(now if instance.ready_at is None else instance.ready_at for instance in self.ready)
        idle_since = now if self._idle_since is None else self._idle_since
        inactive_since = max(idle_since, ready_at + self.settings.stable_window_s)
        return 0 if now >= inactive_since + self.settings.pod_retention_s else 1

    def _is_starting(self, instance: Instance, now: float) -> bool:
        """Tell whether an instance may still become ready for the first time, within the progress deadline."""
        return not instance.stopping and instance.ready_at is None and not self._is_late(instance, now)

    def _is_late(self, instance: Instance, now: float) -> bool:
        is_new = not instance.stopping and instance.ready_at is None
        return is_new and now - instance.started_at > self._deadline_s

    def _fail_start(self, reason: str) -> None:
        """Note that a start from zero failed; the next request starts an instance again."""
        self._start_failure, self.desired = f"revision {self.name} cannot start: {reason}", 0

    def take_start_failure(self) -> str | None:
        """Return once why a start from zero failed; None if none failed since the last call."""
        failure, self._start_failure = self._start_failure, None
        return failure

    def plan(self, now: float) -> InstancePlan:
        """Return what to start or stop; unready instances stop first, then those that became ready last."""
        staying = [instance for instance in self.instances if not instance.stopping]
        surplus = len(staying) - self.wanted(now)
        if surplus < 0:
            return InstancePlan(start=-surplus if now >= self.retry_at else 0)
        staying.sort(key=lambda instance: (instance.ready_at is not None, -(instance.ready_at or 0.0)))
        return InstancePlan(stop=staying[:surplus])

    def ended(self, instance: Instance, now: float) -> None:
        """
        Forget an instance that ended.

        The replacement of an instance that was not told to stop starts immediately. Further ones wait, longer each
        time, until an instance has been ready for some seconds.
        """
        self.instances.remove(instance)
        if instance.stopping:
            return
        if instance.ready_at is not None and now - instance.ready_at >= _STEADY_S:
            self._failed_starts = 0
        self._failed_starts += 1
        longest_s = 30.0 if self.pending else 1.0
        self.retry_at = now + (min(0.25 * 2 ** (self._failed_starts - 2), longest_s) if self._failed_starts > 1 else 0)
        if self.pending and self._failed_starts >= _FAILED_STARTS:
            self._note(RevisionEvent.CRASHED)
            self.failure = f"its instances end before they are ready: {instance.exit_reason}"
        elif self.is_held and self._failed_starts >= _FAILED_STARTS and instance.ready_at is None:
            self._fail_start(str(instance.exit_reason))

    def _note(self, event: RevisionEvent) -> None:
        self.state = advance(TRANSITIONS, self.state, event)
