"""Records the answers of a run by second, and summarises them."""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loadtests.answers import AnswerVerdict
from loadtests.traffic import RECOMMENDATION_KINDS, Kind

Series = dict[str, list[Any]]
_RECENT_S = 5
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass
class _Second:
    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    answers: int = 0
    faults: int = 0
    wrong: int = 0
    degraded: int = 0


@dataclass(frozen=True)
class PlatformSample:
    """
    One sample of the platform and of the load generator.

    Attributes:
        elapsed_s: Time since the start of the run.
        wanted: Target load: users (closed loop) or requests per second (open loop).
        services: For each Service: ready, desired, concurrency, memory_mb. Empty if the platform's status is unavailable.
        cpu_percent: CPU time of the generator since the last sample, in percent of one CPU.
        machine_percent: Use of all CPUs of this machine, by all processes.
    """

    elapsed_s: float
    wanted: float
    services: Mapping[str, Mapping[str, float]]
    cpu_percent: float
    machine_percent: float


class Recorder:
    """
    Records every answer and every platform sample.

    Durations are seconds. An answer counts for the second of the run in which it arrived.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, _Second] = {}
        self._latencies: dict[Kind, array[float]] = {}
        self._faults: Counter[tuple[Kind, str]] = Counter()
        self._batches: Counter[int] = Counter()
        self._late = array("d")
        self.samples: list[PlatformSample] = []

    def note(self, kind: Kind, verdict: AnswerVerdict, *, at_s: float, latency_s: float) -> None:
        """Record an answer that arrived *at_s* seconds after the start."""
        second = self._seconds.setdefault(int(at_s), _Second())
        second.answers += 1
        second.degraded += verdict.degraded
        self._latencies.setdefault(kind, array("d")).append(latency_s)
        if verdict.fault is not None:
            second.faults += 1
            second.wrong += verdict.wrong
            self._faults[kind, verdict.fault] += 1
        if kind in RECOMMENDATION_KINDS:
            second.latencies.append(latency_s)
        if verdict.batch:
            self._batches[verdict.batch] += 1

    def note_late(self, seconds: float) -> None:
        """Record the delay between the due time of an open-loop request and its sending."""
        self._late.append(seconds)

    def recent(self, now_s: float) -> dict[str, float]:
        """Return requests per second and p99 (ms) of the last five whole seconds, and all faults so far."""
        last = int(now_s)
        window = [self._seconds[second] for second in range(max(0, last - _RECENT_S), last) if second in self._seconds]
        latencies = array("d", (latency for second in window for latency in second.latencies))
        return {
            "rps": sum(second.answers for second in window) / max(1, min(_RECENT_S, last)),
            "p99_ms": _quantiles(latencies)["p99_ms"],
            "faults": float(sum(second.faults for second in self._seconds.values())),
        }

    def result(self, *, duration_s: float) -> dict[str, Any]:
        """Return all figures as plain data: `summary`, `kinds`, `faults`, `seconds`, `batches`, `platform`."""
        return {
            "summary": self._summary(duration_s),
            "kinds": [self._kind(kind, latencies) for kind, latencies in sorted(self._latencies.items())],
            "faults": [
                {"kind": kind, "fault": fault, "count": count} for (kind, fault), count in self._faults.most_common()
            ],
            "seconds": self._series(),
            "batches": dict(sorted(self._batches.items())),
            "platform": platform_series(self.samples),
        }

    def _summary(self, duration_s: float) -> dict[str, Any]:
        seconds = self._seconds.values()
        requests = sum(second.answers for second in seconds)
        latencies = array("d", (latency for second in seconds for latency in second.latencies))
        faults, wrong = sum(second.faults for second in seconds), sum(second.wrong for second in seconds)
        # The first sample covers the time before the load.
        cpu = [sample.cpu_percent for sample in self.samples[1:]]
        machine = [sample.machine_percent for sample in self.samples[1:]]
        return {
            "requests": requests,
            "rps": round(requests / duration_s, 2),
            "failed": faults,
            "fail_ratio": faults / requests if requests else 1.0,
            "wrong": wrong,
            "degraded_ratio": sum(second.degraded for second in seconds) / max(1, len(latencies)),
            **_quantiles(latencies),
            "late_p99_ms": _quantiles(self._late)["p99_ms"] if self._late else None,
            "generator_cpu_percent": round(float(np.median(cpu)), 1) if cpu else 0.0,
            "generator_saturated_share": _share_saturated(cpu),
            "machine_saturated_share": _share_saturated(machine),
        }

    def _kind(self, kind: Kind, latencies: "array[float]") -> dict[str, Any]:
        faults = sum(count for (each, _), count in self._faults.items() if each == kind)
        return {"kind": kind, "requests": len(latencies), "failed": faults, **_quantiles(latencies)}

    def _series(self) -> Series:
        last = max(self._seconds, default=-1)
        seconds = [self._seconds.get(number, _Second()) for number in range(last + 1)]
        quantiles = [_quantiles(second.latencies) if second.latencies else {} for second in seconds]
        return {
            "rps": [second.answers for second in seconds],
            "failed": [second.faults for second in seconds],
            "degraded": [second.degraded for second in seconds],
            **{f"{name}_ms": [each.get(f"{name}_ms") for each in quantiles] for name in QUANTILES},
        }


# Above this use, CPU is the bottleneck. The generator has one thread and can use one CPU.
SATURATED_PERCENT = 90.0


def platform_series(samples: Sequence[PlatformSample]) -> dict[str, Any]:
    """Turn samples into columns: `elapsed_s`, `wanted`, `cpu_percent`, `machine_percent`, and columns for each Service."""
    names = sorted({name for sample in samples for name in sample.services})
    columns = ("ready", "desired", "concurrency", "memory_mb")
    return {
        "elapsed_s": [round(sample.elapsed_s, 2) for sample in samples],
        "wanted": [sample.wanted for sample in samples],
        "cpu_percent": [round(sample.cpu_percent, 1) for sample in samples],
        "machine_percent": [round(sample.machine_percent, 1) for sample in samples],
        "services": {
            name: {
                column: [sample.services[name][column] if name in sample.services else None for sample in samples]
                for column in columns
            }
            for name in names
        },
    }


def _share_saturated(percents: Sequence[float]) -> float:
    return sum(percent > SATURATED_PERCENT for percent in percents) / max(1, len(percents))


def _quantiles(latencies: "array[float]") -> dict[str, float]:
    if not latencies:
        return {f"{name}_ms": 0.0 for name in QUANTILES}
    values = np.quantile(np.frombuffer(latencies), list(QUANTILES.values()))
    return {f"{name}_ms": round(float(value) * 1000, 3) for name, value in zip(QUANTILES, values, strict=True)}
