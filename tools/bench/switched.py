"""
`python -m tools.bench.switched --source FILE`: serve a function whose telemetry can be switched while it runs.

On SIGUSR1 the process reads the name of a state from the file at the path in SWITCH, and enters that state. The
benchmark compares the states of one process: two processes with the same code differ by more than telemetry costs,
for instance in memory layout and in the load on their cores.

Switching off replaces methods by empty ones instead of removing their calls from a dozen modules. An empty call costs
0.1 us.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from chassis.server import service
from chassis.server.__main__ import main as serve
from chassis.server.settings import ServingSettings
from chassis.telemetry.instruments import Counter, Histogram
from chassis.telemetry.tracing import NoTracer, PassOn, Span, Tracer

SHIPPED, NO_METRICS, NO_SPANS, TRACED = STATES = ("shipped", "without metrics", "without spans", "traced")


class NullSpan(PassOn):
    """A span without any work; it does not even pass on the caller's context."""

    def context(self) -> list[tuple[bytes, bytes]]:
        """Return nothing."""
        return _NO_CONTEXT


_NO_CONTEXT: list[tuple[bytes, bytes]] = []
_NULL_SPAN = NullSpan(())


def _begin_null_span(*_: Any) -> Span:
    return _NULL_SPAN


def _ignore(*_: Any, **__: Any) -> None:
    pass


class Switch:
    """The tracer of the process. `turn` replaces the methods of tracer and instruments."""

    def __init__(self, traced: Tracer) -> None:
        self._traced = traced
        self._instruments = {(Counter, "add"): Counter.add, (Histogram, "observe"): Histogram.observe}
        self.begin: Any = NoTracer().begin

    def turn(self, state: str) -> None:
        """Enter *state*; it applies from the next request on."""
        begins = {NO_SPANS: _begin_null_span, TRACED: self._traced.begin}
        self.begin = begins.get(state, NoTracer().begin)
        for (owner, name), method in self._instruments.items():
            setattr(owner, name, _ignore if state == NO_METRICS else method)

    def close(self) -> None:
        """Send the remaining spans."""
        self._traced.close()


def main() -> int:
    """Serve, and change the state on SIGUSR1."""
    state_file = Path(os.environ["SWITCH"])
    make_tracer = service.make_tracer

    def make_switch(settings: ServingSettings, name: str) -> Tracer:
        switch = Switch(make_tracer(settings, name))
        signal.signal(signal.SIGUSR1, lambda *_: switch.turn(state_file.read_text()))
        return switch

    service.make_tracer = make_switch
    return serve()


if __name__ == "__main__":
    sys.exit(main())
