"""Show the progress of long work: a bar on a terminal, and elsewhere a line every few seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

_EVERY_S = 5.0


@contextmanager
def progress(
    name: str,
    total: int,
    unit: str,
    *,
    out: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int], None]]:
    """
    Yield a function that takes the amount of work done so far, out of *total*.

    Args:
        name: The work, such as the name of a file.
        total: The amount of work; 0 if it is unknown.
        unit: The unit of the amounts, such as "B".
        out: Where to write; standard error by default.
        clock: Seconds; a test passes another clock.
    """
    stream = sys.stderr if out is None else out
    if stream.isatty():
        with tqdm(desc=name, total=total or None, unit=unit, unit_scale=True, file=stream) as bar:
            yield lambda done: (bar.update(done - bar.n), None)[1]
    else:
        yield _Lines(name, total, unit, out=stream, clock=clock).show


class _Lines:
    def __init__(self, name: str, total: int, unit: str, *, out: TextIO, clock: Callable[[], float]) -> None:
        self._name, self._total, self._unit = name, total, unit
        self._out, self._clock = out, clock
        self._next = clock() + _EVERY_S

    def show(self, done: int) -> None:
        if (now := self._clock()) < self._next:
            return
        self._next = now + _EVERY_S
        amount = f"{done if done < 1000 else tqdm.format_sizeof(done)} {self._unit}"
        share = f" ({done / self._total:.0%})" if self._total else ""
        print(f"{self._name}: {amount}{share}", file=self._out, flush=True)
