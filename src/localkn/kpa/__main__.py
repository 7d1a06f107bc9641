"""
Replay traces of an autoscaler: one JSON object per line on stdin, one result per line on stdout.

A trace holds `annotations`, `container_concurrency`, `reachable`, `epoch`, `records` as [t, value] and, for
each of its `ticks`, `t` and `ready`. Recorded decisions in a trace are ignored.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

from localkn.kpa.autoscaler import Autoscaler
from localkn.kpa.settings import Settings

_RESOLVED = (
    "target", "total", "target_burst_capacity", "panic_threshold", "stable_window_s", "panic_window_s",
    "scale_down_delay_s", "activation_scale", "initial_scale", "min_scale", "max_scale", "max_scale_up_rate",
    "max_scale_down_rate",
)  # fmt: skip


def replay(trace: dict[str, Any]) -> dict[str, Any]:
    """Decide every tick of one trace; its annotations are taken as they are, not validated again."""
    settings = Settings.from_annotations(trace["annotations"], container_concurrency=trace["container_concurrency"])
    autoscaler = Autoscaler(settings, reachable=trace["reachable"])
    resolved = {name: getattr(settings, name) for name in _RESOLVED}
    return {"name": trace["name"], "resolved": resolved, "ticks": list(_ticks(trace, autoscaler))}


def _ticks(trace: dict[str, Any], autoscaler: Autoscaler) -> Iterator[dict[str, Any]]:
    epoch, records, taken = trace["epoch"], trace["records"], 0
    replicas = min(1, autoscaler.settings.min_scale)
    for tick in trace["ticks"]:
        while taken < len(records) and records[taken][0] <= tick["t"]:
            autoscaler.record(epoch + records[taken][0], records[taken][1])
            taken += 1
        decision = autoscaler.decide(epoch + tick["t"], ready=tick["ready"])
        if decision.valid:
            replicas = autoscaler.settings.bounded(decision.desired, reachable=autoscaler.reachable)
        yield {
            "t": tick["t"],
            "valid": decision.valid,
            "stable": decision.stable,
            "panic": decision.panic,
            "desired": decision.desired,
            "excess_burst_capacity": decision.excess_burst_capacity,
            "replicas": replicas,
        }


def main() -> int:
    """Replay stdin to stdout; stop at the first line that is not a trace, and name it."""
    for number, line in enumerate(sys.stdin, start=1):
        if not line.strip():
            continue
        try:
            answer = replay(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            print(f"line {number} is not a trace: {error!r}", file=sys.stderr)
            return 1
        print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
