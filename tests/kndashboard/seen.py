"""Observations of a platform, for tests."""

from collections.abc import Mapping
from typing import Any

from kndashboard.samples import SampleReader
from kndashboard.snapshots import Exposed, Snapshot

POD = "rank-items-00001-1"


def revision(name: str, *states: str, **changes: Any) -> dict[str, Any]:
    instances = [
        {"name": f"{name}-{i}", "state": state, "port": 1, "pid": 1, "metrics_port": 20_000 + i}
        for i, state in enumerate(states, 1)
    ]
    said = {
        "name": name, "ready": states.count("ready"), "desired": 2, "decided": 7, "traffic_percent": 100, "tags": [],
        "failure": None, "concurrency": 2.5, "rps": 4.0, "metric": "concurrency", "target": 3.0, "stable": 1.5,
        "panic": 2.25, "panicking": True, "excess_burst_capacity": -1, "waiting": 0, "cold_start_s": None,
        "instances": instances,
    }  # fmt: skip
    return said | changes


def service(*revisions: dict[str, Any], public: bool = False) -> dict[str, Any]:
    described = {
        "url": "http://127.0.0.1:1",
        "address": "http://127.0.0.1:3",
        "namespace": "default",
        "public": public,
        "ready": True,
        "problem": None,
    }
    return {**described, "revisions": list(revisions)}


def status(**services: dict[str, Any]) -> dict[str, Any]:
    named = {name.replace("_", "-"): each for name, each in services.items()}
    return {"url": "http://127.0.0.1:2", "dashboard": None, "direct": False, "notes": [], "services": named}


def snapshot(at: float, said: dict[str, Any], exposed: Mapping[str, str] = {}) -> Snapshot:
    return Snapshot(at, said, {pod: Exposed(text, SampleReader().read(text)) for pod, text in exposed.items()})
