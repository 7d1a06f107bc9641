"""
The receipt of a request, carried by the Server-Timing header: where the time went, and who answered.

    Server-Timing: store;dur=0.081, total;dur=0.212, rev;desc="extract-features-00001"

Durations are milliseconds. Source of the format: W3C Server Timing, section 4.
"""

import re
import time

HEADER = b"server-timing"

_ENTRY = re.compile(r'\s*([A-Za-z0-9_.-]+)((?:\s*;\s*[a-z]+=(?:"[^"]*"|[^;,"]*))*)\s*(?:,|$)')
_PARAMETER = re.compile(r';\s*([a-z]+)=(?:"([^"]*)"|([^;,"]*))')


class Receipt:
    """
    Collects the phases of one request while it is worked on.

    Args:
        start: When the work began, seconds on the monotonic clock.
    """

    def __init__(self, start: float) -> None:
        self._start = start
        self._last = start
        self._entries: list[str] = []
        self._spent = 0.0

    def mark(self, phase: str) -> None:
        """End *phase*: it gets the time since the last mark."""
        now = time.monotonic()
        self.spend(phase, now - self._last)
        self._last = now

    def spend(self, phase: str, seconds: float) -> None:
        """Enter *seconds* for *phase*, measured elsewhere."""
        self._spent += seconds
        self._entries.append(f"{phase};dur={seconds * 1000:.3f}")

    def account(self, phase: str) -> None:
        """Enter for *phase* all the time since the start that no other phase accounts for."""
        self.spend(phase, max(0.0, self.elapsed_s() - self._spent))

    def note(self, name: str, text: str) -> None:
        """Enter a fact that is no duration."""
        self._entries.append(f'{name};desc="{text}"')

    def elapsed_s(self) -> float:
        """Return the seconds since the work began."""
        return time.monotonic() - self._start

    def header(self, *, revision: str) -> tuple[bytes, bytes]:
        """Return the Server-Timing header, with the total and the *revision* that answered at its end."""
        self.spend("total", self.elapsed_s())
        self.note("rev", revision)
        return HEADER, ", ".join(self._entries).encode("latin-1", "replace")


def parse_receipt(value: str) -> tuple[dict[str, float], dict[str, str]]:
    """Return the durations (seconds) and the facts of a Server-Timing value; what is malformed is left out."""
    durations: dict[str, float] = {}
    facts: dict[str, str] = {}
    for name, parameters in _ENTRY.findall(value):
        for key, quoted, plain in _PARAMETER.findall(parameters):
            if key == "desc":
                facts[name] = quoted or plain
            elif key == "dur":
                try:
                    durations[name] = float(plain or quoted) / 1000
                except ValueError:
                    continue
    return durations, facts
