"""The time of each phase of ranking a batch."""

import time
from typing import Literal

Phase = Literal["candidates", "blend", "ranker", "rules"]
PHASES: tuple[Phase, ...] = ("candidates", "blend", "ranker", "rules")


class Phases:
    """
    A stopwatch for one batch.

    Attributes:
        seconds: Seconds by phase: `candidates` folds histories in and scores items by every source, `blend` combines
            the scores and sorts, `ranker` computes features and scores the shortlists, `rules` arranges the lists. A
            phase that did not run is missing.

    Cost: a fraction of a microsecond per mark.
    """

    __slots__ = ("_last", "seconds")

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def end(self, phase: Phase) -> None:
        """Add the time since the last call to *phase*."""
        now = time.monotonic()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now
