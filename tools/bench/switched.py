"""
`python -m tools.bench.switched --source FILE`: a function whose metrics and traces are switched while it serves.

On SIGUSR1 it reads the name of a state from the file SWITCH names. Two processes of the same code differ by more than
telemetry costs, in where their memory lies and what they share a core with; one process compared with itself does not.

What would have to be taken out of a dozen modules is made to do nothing: what is left of it is some calls of empty
methods, 0.1 us each.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chassis.server import service
from chassis.server.__main__ import main as serve
from chassis.server.settings import ServingSettings
from chassis.telemetry.instruments import Counter, Histogram
from chassis.telemetry.tracing import Attributes, NoTracer, Span, Tracer

SHIPPED, NO_METRICS, NO_SPANS, TRACED = STATES = ("shipped", "without metrics", "without spans", "traced")


class Nothing:
    """A span that is not even a stand-in: it does not hand on the caller's context."""

    trace_id = None

    def child(self, name: str, *, attributes: Attributes | None = None) -> Span:
        """Return itself."""
        return self

    def record(self, name: str, *, began: float, ended: float, attributes: Attributes | None = None) -> None:
        """Record nothing."""

    def begin_shared(self, name: str, spans: Sequence[Span]) -> Span:
        """Return itself."""
        return self

    def context(self) -> list[tuple[bytes, bytes]]:
        """Return nothing."""
        return _NO_CONTEXT

    def end(self, *, status: int) -> None:
        """End nothing."""


_NO_CONTEXT: list[tuple[bytes, bytes]] = []
_NOTHING = Nothing()


def _begin_nothing(*_: Any) -> Span:
    return _NOTHING


def _ignore(*_: Any, **__: Any) -> None:
    pass


class Switch:
    """The tracer of the process, and what its instruments do, by state."""

    def __init__(self, traced: Tracer) -> None:
        self._traced = traced
        self._instruments = {(Counter, "add"): Counter.add, (Histogram, "observe"): Histogram.observe}
        self.begin: Any = NoTracer().begin

    def turn(self, state: str) -> None:
        """Be in *state* from the next request on."""
        begins = {NO_SPANS: _begin_nothing, TRACED: self._traced.begin}
        self.begin = begins.get(state, NoTracer().begin)
        for (owner, name), method in self._instruments.items():
            setattr(owner, name, _ignore if state == NO_METRICS else method)

    def close(self) -> None:
        """Send what has not been sent."""
        self._traced.close()


def main() -> int:
    """Serve, and turn when told."""
    told = Path(os.environ["SWITCH"])
    make_tracer = service.make_tracer

    def make_switch(settings: ServingSettings, name: str) -> Tracer:
        switch = Switch(make_tracer(settings, name))
        signal.signal(signal.SIGUSR1, lambda *_: switch.turn(told.read_text()))
        return switch

    service.make_tracer = make_switch
    return serve()


if __name__ == "__main__":
    sys.exit(main())
