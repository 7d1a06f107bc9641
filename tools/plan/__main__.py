"""`./run.sh plan`: measure what the running pipeline can take, and say how to set it up for a goal."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtests.target import TargetError, find_target
from tools.plan.curves import TooFewError
from tools.plan.observations import ObservedSettings, Sweep
from tools.plan.planner import CapacityPlan, Goal, UnreachableError, make_plan
from tools.plan.sweep import measure

_LEVELS = "1,2,4,8,16,32,64"


def main(arguments: Sequence[str] | None = None) -> int:
    """CapacityPlan; return 0 when there is a plan, 1 when no setting reaches the goal, 2 when nothing could be measured."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        target = find_target(
            state_dir=options.state_dir,
            url=options.url,
            port=options.port,
            features_url=None,
            token=os.environ.get("LOAD_TOKEN", ""),
        )
        console.print(f"sweeping {target.url}, {options.step_s:g} s a step", soft_wrap=True)
        sweep = measure(
            target,
            levels=options.levels,
            step_s=options.step_s,
            users=options.population,
            tell=lambda line: console.print(line, soft_wrap=True, highlight=False),
        )
        plan = make_plan(sweep, Goal(options.rps, options.p99_ms / 1000))
    except UnreachableError as error:
        print(error, file=sys.stderr)
        return 1
    except (TargetError, TooFewError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(describe(plan, sweep)))
    else:
        kn = _kn(options.state_dir) if target.control else "kn {}"
        show(plan, sweep.configured, Console(width=None if sys.stdout.isatty() else 140), kn=kn)
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


def _kn(state_dir: Path) -> str:
    return "./run.sh kn {}" if state_dir == Path(".recsys") else f"./run.sh kn {{}} --state-dir {state_dir}"


def _update(name: str, plan: CapacityPlan) -> str:
    each = plan.components[name]
    settings = " ".join(f"--env {key}={value}" for key, value in each.environment.items())
    scale = f"--scale {each.min_scale}..{each.max_scale} --scale-target {each.target}"
    return f"service update {name} {scale} {settings}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run.sh plan", description=__doc__)
    parser.add_argument("--rps", type=_positive, required=True, help="recommendations a second to plan for")
    parser.add_argument("--p99-ms", type=_positive, required=True, help="99th percentile of their latency to keep")
    parser.add_argument("--url", help="of a pipeline elsewhere")
    parser.add_argument("--levels", type=_levels, default=_LEVELS, help=f"numbers of callers; {_LEVELS}")
    parser.add_argument("--step-s", type=_positive, default=6.0, help="length of a step; below 6 coalescing is blurred")
    parser.add_argument("--population", type=int, default=1000, help="users to ask for: user_1 to user_N")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--state-dir", type=Path, default=Path(".recsys"))
    parser.add_argument("--port", type=int, default=8080)
    return parser


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value


def _levels(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.isdigit() and int(word) for word in words):
        raise argparse.ArgumentTypeError(f"must be numbers of callers like {_LEVELS}, not {text!r}")
    return sorted({int(word) for word in words})


if __name__ == "__main__":
    sys.exit(main())
