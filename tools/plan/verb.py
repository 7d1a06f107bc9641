"""`./run.sh plan`: measure the capacity of the running pipeline, and recommend settings for a target load."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtests.population import known_users
from loadtests.target import TargetError, find_target
from offline.state import StateDirectory
from tools.plan.curves import TooFewError
from tools.plan.observations import ObservedSettings, Sweep
from tools.plan.planner import CapacityPlan, Goal, UnreachableError, make_plan
from tools.plan.sweep import measure


def plan(
    *,
    rps: float,
    p99_ms: float,
    url: str | None = None,
    levels: str,
    step_s: float,
    population: int,
    user_ids: Path | None = None,
    ca_file: Path | None = None,
    as_json: bool = False,
    port: int | None = None,
    state_dir: Path,
) -> int:
    """Plan; return 0, 1 if no setting reaches the goal or nothing could be measured, 2 if *user_ids* has no ids."""
    console = Console(stderr=True)
    try:
        users = known_users(user_ids, most=population)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        token = os.environ.get("LOAD_TOKEN", "")
        target = find_target(state_dir=state_dir, url=url, port=port, token=token, authority=ca_file)
        console.print(f"sweeping {target.url}, {step_s:g} s a step", soft_wrap=True)
        sweep = measure(
            target,
            levels=sorted({int(level) for level in levels.split(",")}),
            step_s=step_s,
            users=users,
            tell=lambda line: console.print(line, soft_wrap=True, highlight=False),
        )
        found = make_plan(sweep, Goal(rps, p99_ms / 1000))
    except (UnreachableError, TargetError, TooFewError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(describe(found, sweep)))
    else:
        kn = f"./run.sh kn {{}}{StateDirectory(state_dir).option}" if target.control else "kn {}"
        show(found, sweep.configured, Console(width=None if sys.stdout.isatty() else 140), kn=kn)
    return 0


def describe(plan: CapacityPlan, sweep: Sweep) -> dict[str, Any]:
    """Return the plan and the measured steps as plain data."""
    law = plan.fits.scalability
    return {
        "components": {name: asdict(component) for name, component in plan.components.items()},
        "predicted": {
            "p99_ms": plan.p99_s * 1000,
            "batch_size": plan.batch_size,
            "ceiling_rps": plan.ceiling_rps,
            "bottleneck": plan.bottleneck,
            "now_rps": plan.now_rps,
            "ready_rps": plan.ready_rps,
            "machine_rps": plan.machine_rps,
        },
        "batch": {"per_item_ms": plan.fits.batch.per_item_s * 1000, "fixed_ms": plan.fits.batch.fixed_s * 1000},
        "knee": None if law is None else _finite({**asdict(law), "callers": law.knee, "limit_rps": law.limit_rps}),
        "steps": [
            {"callers": s.callers, "rps": s.rps, "p50_ms": s.p50_ms, "p99_ms": s.p99_ms, "errors": s.errors, **s.ready}
            for s in sweep.steps
        ],
        "notes": list(plan.notes),
    }


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    # JSON has no infinity; an absent limit is null.
    return {name: None if value == float("inf") else value for name, value in values.items()}


def show(plan: CapacityPlan, configured: ObservedSettings, console: Console, *, kn: str) -> None:
    """
    Print the plan: settings of each Service, with the current ones, the curves, the ceilings, and commands to apply it.

    *kn* is a format string for a command line of kn.
    """
    table = Table("Service", "target", "min-scale", "max-scale", "rps per instance", "ceiling per instance")
    for name, each in plan.components.items():
        target, largest = (current.get(name) for current in (configured.target, configured.max_scale))
        scale = (_with_current(each.target, target), str(each.min_scale), _with_current(each.max_scale, largest))
        table.add_row(name, *scale, f"{each.instance_rps:.0f}", f"{each.ceiling_rps:.0f}")
    console.print(table)
    batch, law = plan.fits.batch, plan.fits.scalability
    lines = [f"a batch of n takes {batch.per_item_s * 1000:.3g} ms * n + {batch.fixed_s * 1000:.3g} ms"]
    if law is not None:
        knee = "not reached" if law.knee == float("inf") else f"{law.knee:.0f} callers, {law.limit_rps:.0f} rps"
        lines.append(f"knee of one ranker: {knee}")
    machine = "" if plan.machine_rps is None else f"; limit of this machine's CPUs {plan.machine_rps:.0f} rps"
    lines += [
        f"predicted: p99 {plan.p99_s * 1000:.0f} ms, batches of {plan.batch_size:.1f}",
        f"ceiling: {plan.ceiling_rps:.0f} rps at max-scale ({plan.bottleneck})",
        f"with the current settings: {plan.ready_rps:.0f} rps, {plan.now_rps:.0f} rps at max-scale{machine}",
        *plan.notes,
        "",
        *(kn.format(_update(name, plan)) for name in plan.components),
    ]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _with_current(value: int, now: float | None) -> str:
    return str(value) if now is None or now == value else f"{value} (now {now:g})"


def _update(name: str, plan: CapacityPlan) -> str:
    each = plan.components[name]
    settings = " ".join(f"--env {key}={value}" for key, value in each.environment.items())
    scale = f"--scale {each.min_scale}..{each.max_scale} --scale-target {each.target}"
    return f"service update {name} {scale} {settings}"
