"""`./run.sh load`: run a load test without a browser, write its report, and fail where a limit is broken."""

import argparse
import datetime as dt
import logging
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from chassis.environment import SettingsError
from loadtests.limits import RunLimits, verdict
from loadtests.phases import SHAPES
from loadtests.progress import Progress
from loadtests.report import notes, write_report
from loadtests.run import Run, execute
from loadtests.target import TargetError, find_target

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return 0 when every limit holds, 1 when one is broken, 2 when the run could not be."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    logging.getLogger("locust").setLevel(logging.WARNING)
    try:
        limits = RunLimits.from_env(os.environ)
        target = find_target(
            state_dir=options.state_dir,
            url=options.url,
            port=options.port,
            features_url=options.features_url,
            token=os.environ.get("LOAD_TOKEN", ""),
        )
        run = _run(options)
        began = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
        unit = "users" if run.rate is None else "wanted rps"
        with Progress(duration_s=run.duration_s, unit=unit, console=console) as progress:
            result = execute(run, target, show=progress.show)
    except (SettingsError, TargetError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; no report is written of a run that did not end", file=sys.stderr)
        return 130
    result["run"] |= {"shape": options.shape, "began": began}
    result["limits"] = [asdict(each) | {"holds": each.holds} for each in limits.outcomes(result["summary"])]
    result["verdict"] = verdict(result)
    return _tell(result, write_report(result, options.report), console)


def _tell(result: dict[str, Any], page: Path, console: Console) -> int:
    for fault in result["faults"]:
        console.print(f"{fault['count']} x {fault['kind']}: {fault['fault']}", soft_wrap=True, markup=False)
    for note in notes(result)[1:]:
        console.print(note, soft_wrap=True, style="dim", markup=False)
    console.print(f"report: {page}", soft_wrap=True, markup=False, highlight=False)
    print(result["verdict"])
    return 0 if all(each["holds"] for each in result["limits"]) else 1


def _run(options: argparse.Namespace) -> Run:
    shape = SHAPES[options.shape]
    return Run(
        shape=shape,
        duration_s=options.duration or shape.default_s,
        users=options.users,
        rate=options.rate,
        pattern=options.arrivals,
        think_s=options.think_ms / 1000,
        population=options.population,
        zipf=options.zipf,
        events=options.events,
        seed=options.seed,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run.sh load", description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="steady")
    parser.add_argument("--users", type=_count, default=50, help="closed loop: users at the height of the shape")
    parser.add_argument("--rate", type=_positive, help="open loop: requests a second at the height of the shape")
    parser.add_argument("--arrivals", choices=["poisson", "constant"], default="poisson", help="of the open loop")
    parser.add_argument("--think-ms", type=_not_negative, default=0.0, help="closed loop: mean pause after an answer")
    parser.add_argument("--duration", type=_duration, help="seconds, or 90s, 5m, 1h; the shape has a default")
    parser.add_argument("--url", help="of a pipeline elsewhere")
    parser.add_argument("--features-url", help="extract_features of a pipeline elsewhere: events go there")
    parser.add_argument("--population", type=_count, default=1000, help="returning users: user_1 to user_N")
    parser.add_argument("--zipf", type=_not_negative, default=1.0, help="exponent of their popularity; 0: all alike")
    parser.add_argument("--no-events", dest="events", action="store_false", help="send no interactions: they are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--report", type=Path, default=Path("load-report"), help="folder of report.html and report.json"
    )
    parser.add_argument("--state-dir", type=Path, default=Path(".recsys"))
    parser.add_argument("--port", type=int, default=8080)
    return parser


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None or not float(match[1]):
        raise argparse.ArgumentTypeError(f"not a duration: {text!r}; 90, 90s, 5m or 1h")
    return float(match[1]) * _UNITS[match[2]]


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return int(text)


def _positive(text: str) -> float:
    value = _not_negative(text)
    if not value:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def _not_negative(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?", text) is None:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}")
    return float(text)
