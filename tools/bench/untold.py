"""
`python -m tools.bench.untold metrics|traces --source FILE`: a function as if it had no instruments, or no spans.

What would have to be taken out of a dozen modules is made to do nothing: what is left of it is some calls of empty
methods, 0.1 us each.
"""

import sys
from typing import Any

from recsys.serving.__main__ import main as serve
from recsys.telemetry.instruments import Counter, Histogram
from recsys.telemetry.tracing import Attributes, NoTracer, Span


class Nothing:
    """A span that is not even a stand-in: it does not hand on the caller's context."""

    trace_id = None

    def child(self, name: str, *, attributes: Attributes | None = None) -> Span:
        """Return itself."""
        return self

    def record(self, name: str, *, began: float, ended: float, attributes: Attributes | None = None) -> None:
        """Record nothing."""

    def context(self) -> list[tuple[bytes, bytes]]:
        """Return nothing."""
        return _NO_CONTEXT

    def end(self, *, status: int) -> None:
        """End nothing."""


_NO_CONTEXT: list[tuple[bytes, bytes]] = []
_NOTHING = Nothing()


def _begin(*_: Any) -> Span:
    return _NOTHING


def _ignore(*_: Any, **__: Any) -> None:
    pass


def main() -> int:
    """Take away what the first argument names, and serve."""
    what = sys.argv.pop(1)
    if what == "traces":
        setattr(NoTracer, "begin", _begin)  # noqa: B010 - a method is replaced on purpose
    elif what == "metrics":
        setattr(Counter, "add", _ignore)  # noqa: B010 - same
        setattr(Histogram, "observe", _ignore)  # noqa: B010 - same
    else:
        raise SystemExit(f"metrics or traces, not {what}")
    return serve()


if __name__ == "__main__":
    sys.exit(main())
