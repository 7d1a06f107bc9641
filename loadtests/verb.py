"""`./run.sh load`: run a load test, write its report, and fail if a limit is broken."""

# Locust comes first: it replaces the standard library's sockets by cooperative ones before other modules import them.
import locust  # noqa: F401, I001

import datetime as dt
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from chassis.environment import SettingsError
from loadtests.arrivals import Pattern
from loadtests.limits import RunLimits, verdict
from loadtests.phases import SHAPES
from loadtests.population import known_users
from loadtests.progress import Progress
from loadtests.report import notes, write_report
from loadtests.run import Run, execute
from loadtests.target import TargetError, find_target


def load(
    *,
    shape: str,
    users: int,
    rate: float | None = None,
    arrivals: Pattern,
    think_ms: float,
    duration: float | None = None,
    url: str | None = None,
    features_url: str | None = None,
    population: int,
    user_ids: Path | None = None,
    zipf: float,
    no_events: bool = False,
    seed: int,
    report: Path,
    ca_file: Path | None = None,
    port: int | None = None,
    state_dir: Path,
) -> int:
    """Run; return 0 if every limit holds, 1 if a limit is broken or nothing answers, 2 if a limit or *user_ids* is wrong."""
    try:
        returning = known_users(user_ids, most=population)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    run = Run(
        shape=SHAPES[shape],
        duration_s=duration or SHAPES[shape].default_s,
        users=users,
        rate=rate,
        pattern=arrivals,
        think_s=think_ms / 1000,
        returning=returning,
        zipf=zipf,
        events=not no_events,
        seed=seed,
    )
    console = Console(stderr=True)
    logging.getLogger("locust").setLevel(logging.WARNING)
    try:
        limits = RunLimits.from_env(os.environ)
        token = os.environ.get("LOAD_TOKEN", "")
        target = find_target(
            state_dir=state_dir, url=url, port=port, features_url=features_url, token=token, authority=ca_file
        )
        began = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
        unit = "users" if run.rate is None else "wanted rps"
        with Progress(duration_s=run.duration_s, unit=unit, console=console) as progress:
            result = execute(run, target, show=progress.show)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except TargetError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; no report is written of a run that did not end", file=sys.stderr)
        return 130
    result["run"] |= {"shape": shape, "began": began}
    result["limits"] = [asdict(each) | {"holds": each.holds} for each in limits.outcomes(result["summary"])]
    result["verdict"] = verdict(result)
    return _tell(result, write_report(result, report), console)


def _tell(result: dict[str, Any], page: Path, console: Console) -> int:
    for fault in result["faults"]:
        console.print(f"{fault['count']} x {fault['kind']}: {fault['fault']}", soft_wrap=True, markup=False)
    for note in notes(result)[1:]:
        console.print(note, soft_wrap=True, style="dim", markup=False)
    console.print(f"report: {page}", soft_wrap=True, markup=False, highlight=False)
    print(result["verdict"])
    return 0 if all(each["holds"] for each in result["limits"]) else 1
