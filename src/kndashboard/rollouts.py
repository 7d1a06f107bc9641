"""The rollouts: the one under way, and the newest reports, as `./run.sh rollout` writes them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

_RUNNING, _REPORTS = ".*.running.json", "[!.]*.json"
_SHOWN = 5


class StepFigures(Struct, frozen=True):
    """Figures of the answers of a revision in a step."""

    requests: int
    faults: int
    p50_ms: float
    p99_ms: float


class RolloutStep(Struct, frozen=True):
    """
    The comparison of a step.

    Attributes:
        share: Percent of the traffic that the candidate had.
        current: Answers of the present revision.
        candidate: Answers of the candidate to copies of the same requests.
        live: Answers of the Service that came from the candidate.
        overlap: Mean share of the present list in the candidate's; None without lists.
        correlation: Mean rank correlation of the common items; None if no two items are common.
    """

    share: int
    current: StepFigures
    candidate: StepFigures
    live: StepFigures
    overlap: float | None = None
    correlation: float | None = None


class EndedRollout(Struct, frozen=True):
    """The report of a rollout; *time* is that of its end."""

    service: str
    current: str
    candidate: str | None
    promoted: bool
    reasons: tuple[str, ...]
    seen: tuple[RolloutStep, ...]
    seconds: float
    time: str


class RunningRollout(Struct, frozen=True):
    """
    An unfinished rollout.

    Attributes:
        service: Name of the Service.
        current: The present revision.
        candidate: The new revision.
        steps: Percentages of traffic, from 0 to 100.
        share: The percentage of the step under way.
        since: Start of the step, seconds since the epoch.
        seen: The steps before it.
        pid: The process that rolls out.
    """

    service: str
    current: str
    candidate: str
    steps: tuple[int, ...]
    share: int
    since: float
    seen: tuple[RolloutStep, ...]
    pid: int


_Read = TypeVar("_Read", EndedRollout, RunningRollout)


def rollouts(folder: Path) -> dict[str, Any]:
    """Return the unfinished rollouts and the newest reports below *folder*, without files of another form."""
    running = [
        {**msgspec.to_builtins(each), "alive": _is_alive(each.pid)}
        for each in _read(sorted(folder.glob(_RUNNING)), RunningRollout)
    ]
    # The name of a report ends with its time.
    newest = sorted(folder.glob(_REPORTS), key=lambda path: path.stem.rpartition("-")[2], reverse=True)[:_SHOWN]
    return {"running": running, "ended": msgspec.to_builtins([*_read(newest, EndedRollout)])}


def _read(files: list[Path], form: type[_Read]) -> Iterator[_Read]:
    for file in files:
        try:
            yield msgspec.json.decode(file.read_bytes(), type=form)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            continue


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
