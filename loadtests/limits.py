"""Limits that decide whether a run passes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from chassis.environment import Reader


@dataclass(frozen=True)
class LimitOutcome:
    """A limit and the measured figure."""

    name: str
    value: float
    op: Literal["<=", ">="]
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the figure is within the limit."""
        return self.value <= self.bound if self.op == "<=" else self.value >= self.bound


@dataclass(frozen=True)
class RunLimits:
    """
    The limits of a run. The environment variable of a limit is its name in capitals.

    Attributes:
        max_fail_ratio: Share of requests without the expected answer.
        max_wrong_answers: Number of answers that arrived and were wrong; a ratio would hide them.
        max_degraded_ratio: Share of recommendations given without a hop.
        max_p50_ms: Median latency of recommendations.
        max_p99_ms: Their 99th percentile. The default is the time budget of a request that does not set one.
        min_rps: Requests answered per second, over the whole run.
    """

    max_fail_ratio: float = 0.001
    max_wrong_answers: int = 0
    max_degraded_ratio: float = 0.01
    max_p50_ms: float = 1000.0
    max_p99_ms: float = 1000.0
    min_rps: float = 0.0

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "RunLimits":
        """
        Read and check the limits.

        Raises:
            SettingsError: One or more variables are invalid; the error lists all of them.
        """
        reader = Reader(env)
        limits = cls(
            max_fail_ratio=reader.number("MAX_FAIL_RATIO", cls.max_fail_ratio, most=1.0),
            max_wrong_answers=reader.integer("MAX_WRONG_ANSWERS", cls.max_wrong_answers),
            max_degraded_ratio=reader.number("MAX_DEGRADED_RATIO", cls.max_degraded_ratio, most=1.0),
            max_p50_ms=reader.number("MAX_P50_MS", cls.max_p50_ms),
            max_p99_ms=reader.number("MAX_P99_MS", cls.max_p99_ms),
            min_rps=reader.number("MIN_RPS", cls.min_rps),
        )
        reader.finish()
        return limits

    def outcomes(self, summary: Mapping[str, Any]) -> list[LimitOutcome]:
        """Compare the summary of a run (`Recorder.result`) with the limits."""
        return [
            LimitOutcome("MAX_FAIL_RATIO", summary["fail_ratio"], "<=", self.max_fail_ratio),
            LimitOutcome("MAX_WRONG_ANSWERS", summary["wrong"], "<=", self.max_wrong_answers),
            LimitOutcome("MAX_DEGRADED_RATIO", summary["degraded_ratio"], "<=", self.max_degraded_ratio),
            LimitOutcome("MAX_P50_MS", summary["p50_ms"], "<=", self.max_p50_ms),
            LimitOutcome("MAX_P99_MS", summary["p99_ms"], "<=", self.max_p99_ms),
            LimitOutcome("MIN_RPS", summary["rps"], ">=", self.min_rps),
        ]


def verdict(result: Mapping[str, Any]) -> str:
    """Return a one-line verdict on *result*, the result of a recorder with the key `limits` added."""
    summary, broken = result["summary"], [each for each in result["limits"] if not each["holds"]]
    text = (
        f"{summary['requests']:,} requests at {summary['rps']:,.0f} a second, p50 {summary['p50_ms']:.0f} ms, "
        f"p99 {summary['p99_ms']:.0f} ms, {summary['failed']} failed, {summary['wrong']} of them wrong"
    )
    for name, columns in result["platform"]["services"].items():
        ready = [count for count in columns["ready"] if count is not None]
        if ready and max(ready) > ready[0]:
            text += f"; {name} {ready[0]:.0f} to {max(ready):.0f} instances"
    if not broken:
        return f"PASS: {text}"
    faults = ", ".join(
        f"{each['name']} {each['value']:.4g} instead of {each['op']} {each['bound']:g}" for each in broken
    )
    return f"FAIL: {faults}. {text}"
