"""Runs a sweep: loads a running pipeline with rising numbers of callers, a few seconds each."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import uvloop

from chassis.receipt import parse_receipt
from kubeyaml.annotations import SCALING, annotations_of
from loadtests.target import LoadTarget
from localkn import control
from localkn.errors import LocalknError
from tools.bench.closed_loop import LoopOutcome, ServerAddress, request_recommendations, run_callers
from tools.bench.report import describe_environment
from tools.plan.observations import RANKER, SERVICES, LoopStep, ObservedSettings, Receipts, Sweep

# A step is repeated if the number of instances changed during it.
_ATTEMPTS = 4


@dataclass(frozen=True)
class _PlatformState:
    """Ready instances, CPU seconds used so far, and incoming requests per second, by Service."""

    ready: Mapping[str, int]
    cpu_s: Mapping[str, float]
    rps: Mapping[str, float]


def measure(
    target: LoadTarget, *, levels: Sequence[int], step_s: float, users: Sequence[str], tell: Callable[[str], None]
) -> Sweep:
    """Run a step for each number of callers in *levels*; pass a line of progress for each step to *tell*."""
    steps = []
    for callers in levels:
        step = run_step(target, callers=callers, seconds=step_s, users=users)
        steps.append(step)
        instances = ", ".join(f"{name} {count}" for name, count in step.ready.items())
        tell(
            f"{callers:4} callers: {step.rps:6.0f} rps, p50 {step.p50_ms:.0f} ms, p99 {step.p99_ms:.0f} ms  {instances}"
        )
    return Sweep(steps, read_configuration(target))


def run_step(target: LoadTarget, *, callers: int, seconds: float, users: Sequence[str]) -> LoopStep:
    """Run *callers* for *seconds*; repeat the step if the number of instances changed during it."""
    for attempt in range(1, _ATTEMPTS + 1):
        before, receipts = _read_state(target), list[bytes]()
        outcome = uvloop.run(_drive(target, callers=callers, seconds=seconds, users=users, receipts=receipts))
        after = _read_state(target)
        if before.ready == after.ready or attempt == _ATTEMPTS:
            break
    return _step(outcome, receipts, before, after, seconds=seconds)


async def _drive(
    target: LoadTarget, *, callers: int, seconds: float, users: Sequence[str], receipts: list[bytes]
) -> LoopOutcome:
    address = ServerAddress.of(target.url, trust=target.trust())
    headers = [f"{name}: {value}".encode() for name, value in target.headers.items()]
    work = request_recommendations(users, host=httpx.URL(target.url).netloc, headers=headers)
    return await run_callers(address, callers=callers, seconds=seconds, work=work, receipts=receipts)


def _step(
    outcome: LoopOutcome, receipts: Sequence[bytes], before: _PlatformState, after: _PlatformState, *, seconds: float
) -> LoopStep:
    # The CPU time includes the warm-up, so it is divided by the requests of the whole step.
    requests = max(1.0, outcome.rps * seconds)
    cpu_s = {name: max(0.0, used - before.cpu_s.get(name, used)) / requests for name, used in after.cpu_s.items()}
    return LoopStep(
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


def _read_state(target: LoadTarget) -> _PlatformState:
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
        processes = [supervisor, *supervisor.children(recursive=True)]
        cpu_s["platform"] = sum(_cpu_s(each.pid) for each in processes) - sum(cpu_s.values())
        cpu_s["callers"] = _cpu_s(os.getpid())
    return _PlatformState(ready, cpu_s, rps)


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


def read_configuration(target: LoadTarget) -> ObservedSettings:
    """Return the settings of the local platform's Services, or the defaults without a local platform."""
    if target.control is None:
        return ObservedSettings()
    try:
        services = control.call(target.control, "services")
    except LocalknError:
        return ObservedSettings()
    templates = {service["metadata"]["name"]: service["spec"]["template"] for service in services}
    annotations = {name: annotations_of(body) for name, body in templates.items()}
    return ObservedSettings(
        max_batch_size=int(_environment(templates.get(RANKER, {})).get("MAX_BATCH_SIZE", 32)),
        max_scale={name: int(each.get(f"{SCALING}/max-scale", 0)) for name, each in annotations.items()},
        target={name: float(each.get(f"{SCALING}/target", 100)) for name, each in annotations.items()},
        cpus=describe_environment()["cpus"],
    )


def _environment(template: Mapping[str, Any]) -> dict[str, str]:
    containers = template.get("spec", {}).get("containers") or [{}]
    return {each["name"]: str(each["value"]) for each in containers[0].get("env") or () if "value" in each}
