"""The sweep: rising numbers of callers against a running pipeline, a few seconds each."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import uvloop

from chassis.receipt import parse_receipt
from loadtests.target import Target
from localkn import control
from localkn.errors import LocalknError
from tools.bench.closed_loop import Door, Outcome, ask_recommend, run_callers
from tools.plan.observations import RANKER, SERVICES, Configured, Receipts, Step, Sweep

# A step during which instances came or went says nothing about either number of them.
_ATTEMPTS = 4
_SCALING = "autoscaling.knative.dev/"

Told = Callable[[str], None]


@dataclass(frozen=True)
class _Look:
    """Instances ready, CPU seconds used, and requests a second arriving, by Service."""

    ready: Mapping[str, int]
    cpu_s: Mapping[str, float]
    rps: Mapping[str, float]


def measure(target: Target, *, levels: Sequence[int], step_s: float, users: int, tell: Told) -> Sweep:
    """Run one step for each of *levels* callers."""
    steps = []
    for callers in levels:
        step = run_step(target, callers=callers, seconds=step_s, users=users)
        steps.append(step)
        instances = ", ".join(f"{name} {count}" for name, count in step.ready.items())
        tell(
            f"{callers:4} callers: {step.rps:6.0f} rps, p50 {step.p50_ms:.0f} ms, p99 {step.p99_ms:.0f} ms  {instances}"
        )
    return Sweep(steps, read_configuration(target))


def run_step(target: Target, *, callers: int, seconds: float, users: int) -> Step:
    """Run *callers* for so many *seconds*, again where instances came or went meanwhile."""
    for attempt in range(1, _ATTEMPTS + 1):
        before, receipts = _look(target), list[bytes]()
        outcome = uvloop.run(_drive(target, callers=callers, seconds=seconds, users=users, receipts=receipts))
        after = _look(target)
        if before.ready == after.ready or attempt == _ATTEMPTS:
            break
    return _step(outcome, receipts, before, after, seconds=seconds)


async def _drive(target: Target, *, callers: int, seconds: float, users: int, receipts: list[bytes]) -> Outcome:
    url = httpx.URL(target.url)
    secure = url.scheme == "https"
    door = Door(url.host, url.port or (443 if secure else 80), target.trust() if secure else None)
    headers = [f"{name}: {value}".encode() for name, value in target.headers.items()]
    work = ask_recommend(users, host=url.netloc, headers=headers)
    return await run_callers(door, callers=callers, seconds=seconds, work=work, receipts=receipts)


def _step(outcome: Outcome, receipts: Sequence[bytes], before: _Look, after: _Look, *, seconds: float) -> Step:
    # CPU was used in the warm-up too, so it is shared out over the requests of the whole step.
    requests = max(1.0, outcome.rps * seconds)
    cpu_s = {name: max(0.0, used - before.cpu_s.get(name, used)) / requests for name, used in after.cpu_s.items()}
    return Step(
        callers=outcome.callers,
        rps=outcome.rps,
        p50_ms=outcome.p50_ms,
        p99_ms=outcome.p99_ms,
        errors=outcome.errors,
        receipts=_read(receipts),
        ready=after.ready,
        cpu_s=cpu_s,
        users_per_request={name: outcome.rps / rps for name, rps in after.rps.items() if rps},
    )


def _read(receipts: Sequence[bytes]) -> Receipts:
    batches, elsewhere_s, features_s = [], [], []
    for receipt in receipts:
        durations, facts = parse_receipt(receipt.decode("latin-1"))
        if not facts.get("batch", "").isdigit() or "model" not in durations:
            continue
        batches.append((int(facts["batch"]), durations["model"]))
        ranked_s = sum(durations.get(phase, 0.0) for phase in ("fill", "slot", "model"))
        elsewhere_s.append(max(0.0, durations.get("total", 0.0) - ranked_s))
        features_s.append(durations.get("store", 0.0) + durations.get("features", 0.0))
    return Receipts(batches, elsewhere_s, features_s)


def _look(target: Target) -> _Look:
    services: dict[str, Any] = (target.status() or {"services": {}})["services"]
    ready, cpu_s, rps, supervisor = {}, {}, {}, None
    for name in SERVICES:
        serving = [each for each in services.get(name, {"revisions": ()})["revisions"] if each["traffic_percent"]]
        if not serving:
            continue
        ready[name] = sum(each["ready"] for each in serving)
        rps[name] = sum(each["rps"] for each in serving)
        pids = [instance["pid"] for each in serving for instance in each["instances"] if instance["pid"]]
        cpu_s[name] = sum(_cpu_s(pid) for pid in pids)
        supervisor = _parent(pids[0]) if pids else supervisor
    if supervisor is not None:
        family = [supervisor, *supervisor.children(recursive=True)]
        cpu_s["platform"] = sum(_cpu_s(each.pid) for each in family) - sum(cpu_s.values())
        cpu_s["callers"] = _cpu_s(os.getpid())
    return _Look(ready, cpu_s, rps)


def _cpu_s(pid: int) -> float:
    try:
        used = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(used.user + used.system)


def _parent(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid).parent()
    except psutil.Error:
        return None


def read_configuration(target: Target) -> Configured:
    """Return how the local platform's Services are set up; the defaults where there is none."""
    if target.control is None:
        return Configured()
    try:
        services = control.call(target.control, "services")
    except LocalknError:
        return Configured()
    templates = {service["metadata"]["name"]: service["spec"]["template"] for service in services}
    annotations = {name: (body.get("metadata") or {}).get("annotations") or {} for name, body in templates.items()}
    return Configured(
        max_batch_size=int(_environment(templates.get(RANKER, {})).get("MAX_BATCH_SIZE", 32)),
        max_scale={name: int(each.get(f"{_SCALING}max-scale", 0)) for name, each in annotations.items()},
        target={name: float(each.get(f"{_SCALING}target", 100)) for name, each in annotations.items()},
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    )


def _environment(template: Mapping[str, Any]) -> dict[str, str]:
    containers = template.get("spec", {}).get("containers") or [{}]
    return {each["name"]: str(each["value"]) for each in containers[0].get("env") or () if "value" in each}
