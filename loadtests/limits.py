"""What a run has to keep to pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from chassis.environment import Reader


@dataclass(frozen=True)
class Outcome:
    """A limit and the figure it was held against."""

    name: str
    value: float
    op: Literal["<=", ">="]
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the figure keeps the limit."""
        return self.value <= self.bound if self.op == "<=" else self.value >= self.bound


@dataclass(frozen=True)
class Limits:
    """
    The limits of a run; each may be set in the environment under its name in capitals.

    Attributes:
        max_fail_ratio: Requests without the answer they should have had, of all.
        max_wrong_answers: Answers that came and were wrong; a ratio would hide them.
        max_degraded_ratio: Recommendations given without a hop, of all.
        max_p50_ms: Median latency of recommendations.
        max_p99_ms: Their 99th percentile; by default the time budget of a request that brings none.
        min_rps: Requests answered a second, over the whole run.
    """

    max_fail_ratio: float = 0.001
    max_wrong_answers: int = 0
    max_degraded_ratio: float = 0.01
    max_p50_ms: float = 1000.0
    max_p99_ms: float = 1000.0
    min_rps: float = 0.0

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Limits":
        """
        Read and check the limits.

        Raises:
            SettingsError: with every fault.
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

    def outcomes(self, summary: Mapping[str, Any]) -> list[Outcome]:
        """Hold the summary of a run (`Recorder.result`) against the limits."""
        return [
            Outcome("MAX_FAIL_RATIO", summary["fail_ratio"], "<=", self.max_fail_ratio),
            Outcome("MAX_WRONG_ANSWERS", summary["wrong"], "<=", self.max_wrong_answers),
            Outcome("MAX_DEGRADED_RATIO", summary["degraded_ratio"], "<=", self.max_degraded_ratio),
            Outcome("MAX_P50_MS", summary["p50_ms"], "<=", self.max_p50_ms),
            Outcome("MAX_P99_MS", summary["p99_ms"], "<=", self.max_p99_ms),
            Outcome("MIN_RPS", summary["rps"], ">=", self.min_rps),
        ]


def verdict(result: Mapping[str, Any]) -> str:
    """Return one line that says how the run went; *result* is that of a recorder with its `limits`."""
    summary, broken = result["summary"], [each for each in result["limits"] if not each["holds"]]
    said = (
        f"{summary['requests']:,} requests at {summary['rps']:,.0f} a second, p50 {summary['p50_ms']:.0f} ms, "
        f"p99 {summary['p99_ms']:.0f} ms, {summary['failed']} failed, {summary['wrong']} of them wrong"
    )
    for name, columns in result["platform"]["services"].items():
        ready = [count for count in columns["ready"] if count is not None]
        if ready and max(ready) > ready[0]:
            said += f"; {name} {ready[0]:.0f} to {max(ready):.0f} instances"
    if not broken:
        return f"PASS: {said}"
    faults = ", ".join(
        f"{each['name']} {each['value']:.4g} instead of {each['op']} {each['bound']:g}" for each in broken
    )
    return f"FAIL: {faults}. {said}"
