"""The logs of the processes of a platform, merged by time."""

import heapq
import re
import time
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

from localkn.errors import PlatformError

_STAMP = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,6})?")
_STAMP_SEARCH_BYTES = 200
_POLL_S = 0.2
_LEVEL = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b|Traceback", re.IGNORECASE)
# Numbers of ECMA-48: red, yellow, faint.
_COLOURS = {"ERROR": 31, "CRITICAL": 31, "TRACEBACK": 31, "WARNING": 33, "DEBUG": 2}


def merged(folder: Path, name: str, *, follow: bool) -> Iterator[str]:
    """
    Yield the lines of the logs that *name* selects, oldest first, each with the name of its log before it.

    Args:
        folder: Folder of the logs.
        name: An instance, a revision, a Service or a part of the platform; all of them if empty.
        follow: Wait for further lines and logs.

    Raises:
        PlatformError: No log has that name.
    """
    if not find_logs(folder, name):
        known = ", ".join(file.stem for file in find_logs(folder, "")) or "none; `up` makes them"
        raise PlatformError(f"{name or folder}: no log has that name; these exist: {known}")
    read: dict[Path, int] = {}
    while True:
        files = [_stamped(file, read, complete=follow) for file in find_logs(folder, name)]
        yield from (line for _, line in heapq.merge(*files, key=itemgetter(0)))
        if not follow:
            return
        time.sleep(_POLL_S)


def level_of(line: str) -> str:
    """Return the level that *line* names first, in capitals; `TRACEBACK` for the head of a traceback, else empty."""
    found = _LEVEL.search(line)
    return found[0].upper() if found else ""


def coloured(line: str) -> str:
    """Return *line* with the terminal's colour of its level."""
    colour = _COLOURS.get(level_of(line))
    return f"\x1b[{colour}m{line}\x1b[0m" if colour else line


def find_logs(folder: Path, name: str) -> list[Path]:
    """Return the logs of an instance, a revision, a Service or a part of the platform; all of them without a name."""
    return [file for file in sorted(folder.glob("*.log")) if not name or f"{file.stem}-".startswith(f"{name}-")]


def _stamped(file: Path, read: dict[Path, int], *, complete: bool) -> Iterator[tuple[bytes, str]]:
    """
    Yield each line that was not read before with its time; a line without a time has that of the line before it.

    With *complete*, leave a line whose end is not yet written for the next call.
    """
    stamp = b""
    with file.open("rb") as log:
        log.seek(read.get(file, 0))
        while line := log.readline():
            if complete and not line.endswith(b"\n"):
                return
            read[file] = log.tell()
            if found := _STAMP.search(line[:_STAMP_SEARCH_BYTES]):
                stamp = max(stamp, found[0].replace(b" ", b"T").replace(b",", b"."))
            yield stamp, f"{file.stem} | {line.decode(errors='replace').rstrip()}"
