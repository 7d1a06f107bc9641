"""Decides the next action of a rollout from the last comparison. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from chassis.transitions import IllegalTransitionError
from tools.rollout.comparison import Comparison

# A smaller difference does not count: the ratio of two small numbers says little.
NOTICEABLE_MS = 2.0


@dataclass(frozen=True)
class CandidateLimits:
    """
    The limits of a candidate.

    Attributes:
        max_error_rate: Largest share of faults.
        max_p99_ms: Largest p99 of the response time; None for no limit.
        max_slowdown: Largest ratio of its median to that of the present revision.
        min_overlap: Least mean share of the present top-k in its own; None for no limit.
        min_correlation: Least mean rank correlation with the present top-k; None for no limit.
    """

    max_error_rate: float = 0.001
    max_p99_ms: float | None = None
    max_slowdown: float = 1.5
    min_overlap: float | None = None
    min_correlation: float | None = None


@dataclass(frozen=True)
class Shift:
    """Give the candidate *share* percent, then compare; 0 shows it shadow requests only."""

    share: int


@dataclass(frozen=True)
class Promote:
    """Make the candidate the present revision: it kept its limits with all traffic."""


@dataclass(frozen=True)
class RollBack:
    """Take all traffic from the candidate, for *reasons*."""

    reasons: Sequence[str]


Action = Shift | Promote | RollBack


@dataclass
class Rollout:
    """
    One rollout.

    Args:
        steps: Percentages of traffic, rising to 100.
        limits: The limits of the candidate at each step, and before the first.

    Attributes:
        seen: Every comparison so far.
    """

    steps: Sequence[int]
    limits: CandidateLimits
    seen: list[Comparison] = field(default_factory=list)

    def __post_init__(self) -> None:
        """
        Check the steps.

        Raises:
            ValueError: The steps do not rise from at least 1 to 100.
        """
        if list(self.steps) != sorted({*self.steps}) or not self.steps or self.steps[0] < 1 or self.steps[-1] != 100:
            raise ValueError(f"steps must rise from at least 1 to 100, not {','.join(map(str, self.steps))}")
        # The next action by the share with which the candidate kept its limits; a broken limit always rolls back.
        self._following: dict[int, Action] = {share: Shift(step) for share, step in pairwise([0, *self.steps])}
        self._following[100] = Promote()
        self._due: Action = Shift(0)

    def begin(self) -> Action:
        """Return the first action: compare while the candidate has no traffic."""
        return self._due

    def after(self, comparison: Comparison) -> Action:
        """
        Record the outcome of the step that is due, and return the next action.

        Raises:
            IllegalTransitionError: another step is due, or the rollout has ended.
        """
        if self._due != Shift(comparison.share):
            raise IllegalTransitionError(f"a step with {comparison.share} % cannot follow: {self._due} is due")
        self.seen.append(comparison)
        reasons = self.broken(comparison)
        self._due = RollBack(reasons) if reasons else self._following[comparison.share]
        return self._due

    def hopeless(self, faults: int, *, planned: int) -> bool:
        """Tell whether *faults* exceed the limit of a step of *planned* requests even if no more follow."""
        return faults > self.limits.max_error_rate * planned

    def broken(self, now: Comparison) -> list[str]:
        """Return the limits that *now* breaks, each as a sentence."""
        return [*self._errors(now), *self._times(now), *self._differences(now)]

    def _errors(self, now: Comparison) -> list[str]:
        most = self.limits.max_error_rate
        example = f", for instance: {now.fault}" if now.fault else ""
        return [
            f"{each.faults} of {each.requests} {kind} requests failed ({each.error_rate:.2%}, limit {most:.2%}){example}"
            for kind, each in (("shadow", now.candidate), ("live", now.live))
            if each.error_rate > most
        ]

    def _times(self, now: Comparison) -> list[str]:
        reasons, slowest = [], self.limits.max_p99_ms
        for kind, each in (("shadow", now.candidate), ("live", now.live)):
            if slowest is not None and each.p99_ms > slowest:
                reasons.append(f"p99 of {kind} requests is {each.p99_ms:.0f} ms (limit {slowest:.0f} ms)")
        # In later steps the candidate carries the load; the present revision carried it in the first.
        reference = max(each.current.p50_ms for each in self.seen or [now])
        slower = now.candidate.p50_ms > reference + NOTICEABLE_MS
        if reference and slower and now.candidate.p50_ms > reference * self.limits.max_slowdown:
            reasons.append(
                f"its median is {now.candidate.p50_ms / reference:.1f} times the present one, {now.candidate.p50_ms:.0f} "
                f"instead of {reference:.0f} ms (limit {self.limits.max_slowdown:g} times)"
            )
        return reasons

    def _differences(self, now: Comparison) -> list[str]:
        wanted = (
            ("overlap of the top-k", now.overlap, self.limits.min_overlap),
            ("rank correlation", now.correlation, self.limits.min_correlation),
        )
        return [
            f"{what} is {'unknown' if value is None else format(value, '.3f')} (limit {least:g})"
            for what, value, least in wanted
            if least is not None and (value is None or value < least)
        ]
