"""The result of a check: a line that says what was found, and the remedy if something is wrong."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "fault"]


@dataclass(frozen=True)
class Finding:
    """
    One line of the report.

    Attributes:
        level: A note needs no action, or none yet. A fault does.
        seen: The state that the check found.
        todo: The remedy for a fault, or advice for a note.
    """

    level: Level
    seen: str
    todo: str = ""

    def __str__(self) -> str:
        return f"{self.level:<6} {self.seen}" + (f"; {self.todo}" if self.todo else "")


def ok(seen: str) -> Finding:
    """Return what holds."""
    return Finding("ok", seen)


def note(seen: str, todo: str = "") -> Finding:
    """Return what an operator should know."""
    return Finding("note", seen, todo)


def fault(seen: str, todo: str) -> Finding:
    """Return what prevents or endangers a deployment, and what to do."""
    return Finding("fault", seen, todo)
