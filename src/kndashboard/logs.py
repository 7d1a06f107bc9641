"""The newest lines of the logs of a platform."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localkn.logs import level_of

_TAIL_BYTES = 64 * 1024
_LINES = 100
_BAD = {"ERROR", "CRITICAL", "TRACEBACK"}


@dataclass(frozen=True)
class _Tail:
    """The newest lines of a log with their levels, when the log had this size."""

    size: int
    lines: Sequence[tuple[str, str]]
    errors: int


class RecentLogs:
    """
    The logs in a folder. A log is read from its last 64 KiB, and only if it has grown since the last look.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tails: dict[Path, _Tail] = {}

    def newest(self, name: str) -> dict[str, Any]:
        """Return the names of the logs, how many of their newest lines are errors, and the newest 100 lines of *name*."""
        self._tails = {file: self._tail(file) for file in sorted(self._folder.glob("*.log"))}
        logs = {file.stem: tail for file, tail in self._tails.items()}
        counted = [{"name": log, "errors": tail.errors} for log, tail in logs.items()]
        shown = [{"level": level, "text": line} for level, line in logs[name].lines] if name in logs else []
        return {"logs": counted, "name": name, "lines": shown}

    def _tail(self, file: Path) -> _Tail:
        known = self._tails.get(file)
        try:
            with file.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                if known and known.size == size:
                    return known
                log.seek(max(0, size - _TAIL_BYTES))
                lines = log.read(_TAIL_BYTES).decode(errors="replace").splitlines()
        except OSError:
            return _Tail(0, (), 0)
        read = [(level_of(line), line) for line in lines[size > _TAIL_BYTES :]]
        return _Tail(size, read[-_LINES:], sum(level in _BAD for level, _ in read))
