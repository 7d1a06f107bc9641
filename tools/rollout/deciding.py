"""What to do next, given what was seen. Pure: a rollout is told a comparison and returns an action."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tools.rollout.comparing import Comparison

# A candidate that differs by less is as fast, whatever the ratio of two small numbers says.
NOTICEABLE_MS = 2.0


@dataclass(frozen=True)
class Limits:
    """
    What a candidate has to keep.

    Attributes:
        max_error_rate: Share of its answers that may be faults.
        max_p99_ms: Of the time to its answers; None for any.
        max_slowdown: Its median over the present revision's.
        min_overlap: Mean share of the present top-k that its own holds; None for any.
        min_correlation: Mean rank correlation with the present top-k; None for any.
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
    """It has kept its limits with all of the traffic: make it the present revision."""


@dataclass(frozen=True)
class RollBack:
    """Take all traffic from the candidate, for these reasons."""

    reasons: Sequence[str]


Action = Shift | Promote | RollBack


@dataclass
class Rollout:
    """
    One rollout.

    Args:
        steps: Percentages of traffic, rising to 100.
        limits: What the candidate has to keep at each of them, and before the first.

    Attributes:
        seen: Every comparison so far.
    """

    steps: Sequence[int]
    limits: Limits
    seen: list[Comparison] = field(default_factory=list)

    def __post_init__(self) -> None:
        """
        Check the steps.

        Raises:
            ValueError: they do not rise from at least 1 to 100.
        """
        if list(self.steps) != sorted({*self.steps}) or not self.steps or self.steps[0] < 1 or self.steps[-1] != 100:
            raise ValueError(f"steps must rise from at least 1 to 100, not {','.join(map(str, self.steps))}")

    def begin(self) -> Action:
        """Return the first action: look at the candidate while nobody depends on it."""
        return Shift(0)

    def after(self, comparison: Comparison) -> Action:
        """Take note of a step's outcome and return what follows."""
        self.seen.append(comparison)
        if reasons := self.broken(comparison):
            return RollBack(reasons)
        if comparison.share == 100:
            return Promote()
        return Shift(next(step for step in self.steps if step > comparison.share))

    def hopeless(self, faults: int, *, planned: int) -> bool:
        """Tell whether *faults* are too many already for a step of *planned* requests, however the rest turns out."""
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
        # Later the candidate carries the load that slows answers down. The present revision did so at the beginning.
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
            f"{what} is {'not to be had' if value is None else format(value, '.3f')} (limit {least:g})"
            for what, value, least in wanted
            if least is not None and (value is None or value < least)
        ]
