"""The newest lines of the logs of a platform."""

import re
from pathlib import Path
from typing import Any

_TAIL_BYTES = 64 * 1024
_LINES = 100
_LEVEL = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b|Traceback", re.IGNORECASE)
_BAD = {"ERROR", "CRITICAL", "TRACEBACK"}


def recent_lines(folder: Path, name: str) -> dict[str, Any]:
    """
    Return the names of the logs, how many of their newest lines are errors, and the newest 100 lines of log *name*.

    A log is read from its last 64 KiB.
    """
    logs = {file.stem: _tail(file) for file in sorted(folder.glob("*.log"))}
    shown = [{"level": _level(line), "text": line} for line in logs.get(name, ())[-_LINES:]]
    counted = [{"name": log, "errors": sum(_level(line) in _BAD for line in lines)} for log, lines in logs.items()]
    return {"logs": counted, "name": name, "lines": shown}


def _tail(file: Path) -> list[str]:
    try:
        with file.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(0, size - _TAIL_BYTES))
            lines = log.read(_TAIL_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return []
    return lines[1:] if size > _TAIL_BYTES else lines


def _level(line: str) -> str:
    found = _LEVEL.search(line)
    return found[0].upper() if found else ""
