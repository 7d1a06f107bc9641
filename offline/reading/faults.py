"""Collect the faults of an import by kind, so that one run shows all of them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from recsys.declaration.values import Malformed

T = TypeVar("T")
R = TypeVar("R")

_MOST_KINDS = 20


class DataError(Exception):
    """A data file cannot be used; the message names the file, the line and the reason."""


@dataclass
class _Kind:
    first: str
    count: int = 0


class Faults:
    """
    The faulty lines of an import.

    Args:
        allowed: The number of faulty lines that an import may leave out.
    """

    def __init__(self, *, allowed: int = 0) -> None:
        self._allowed = allowed
        self._kinds: dict[tuple[Path, str], _Kind] = {}
        self.count = 0

    def add(self, path: Path, number: int, error: Malformed) -> None:
        """Count the fault *error* of line *number*."""
        kind = self._kinds.setdefault((path, error.kind), _Kind(f"{path}:{number}: {error}"))
        kind.count += 1
        self.count += 1

    def describe(self) -> list[str]:
        """Return a line for each kind of fault, with the first fault of the kind; the most frequent kinds first."""
        kinds = sorted(self._kinds.values(), key=lambda kind: -kind.count)
        more = [f"and {len(kinds) - _MOST_KINDS} more kinds of faults"] if len(kinds) > _MOST_KINDS else []
        return [_describe(kind) for kind in kinds[:_MOST_KINDS]] + more

    def check(self) -> None:
        """
        Raise if there are more faults than allowed.

        Raises:
            DataError: the message lists the faults by kind, and says how to leave them out.
        """
        if self.count > self._allowed:
            limit = f"; --skip-faults allows {self._allowed}" if self._allowed else ""
            remedy = f"correct them, or leave them out with --skip-faults {self.count}"
            raise DataError("\n".join([*self.describe(), f"faulty lines: {self.count}{limit}; {remedy}"]))


def _describe(kind: _Kind) -> str:
    return kind.first + (f" (the first of {kind.count:,} such lines)" if kind.count > 1 else "")


def parse_each(
    lines: Iterable[tuple[int, T | Malformed]], parse: Callable[[T], R], *, path: Path, faults: Faults
) -> Iterator[R]:
    """Yield each of the numbered *lines*, parsed; add those that are malformed to *faults*."""
    for number, line in lines:
        try:
            if isinstance(line, Malformed):
                raise line
            parsed = parse(line)
        except Malformed as error:
            faults.add(path, number, error)
        else:
            yield parsed
