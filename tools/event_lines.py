"""Reads files of JSON lines, each of which holds the data of an event."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from chassis.wire.cloudevents import CloudEvent, explain
from chassis.wire.problems import Rejected
from offline.reading.faults import DataError
from offline.reading.lines import read_lines

SHOWN = 10

T = TypeVar("T")


def read_event_lines(file: Path, read: Callable[[CloudEvent], T]) -> list[T]:
    """
    Return what *read* makes of each line.

    Raises:
        DataError: the file cannot be used; the message lists the faulty lines.
    """
    found: list[T] = []
    faults: list[str] = []
    for number, line in read_lines(file):
        if not isinstance(line, str):
            faults.append(f"{file}:{number}: {line}")
            continue
        try:
            found.append(read(CloudEvent(id="1", source="/import", type="line", data=line.encode())))
        except Rejected as refusal:
            faults.append(f"{file}:{number}: {explain(refusal)}")
    refuse(faults)
    return found


def refuse(faults: Sequence[str]) -> None:
    """
    Raise if there are *faults*.

    Raises:
        DataError: the message lists the first of them.
    """
    if faults:
        more = [f"and {len(faults) - SHOWN:,} more"] if len(faults) > SHOWN else []
        raise DataError("\n".join([*faults[:SHOWN], *more, "nothing was imported; correct the lines"]))
