"""
The receipt of a request, in the Server-Timing header: how long each phase took, and which revision answered.

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
    Collects the durations of the phases of one request.

    Args:
        start: Time at which the work began, seconds on the monotonic clock.

    Attributes:
        durations: Seconds by phase.
        facts: Entries other than durations, by name.
    """

    def __init__(self, start: float) -> None:
        self._start = start
        self._last = start
        self.durations: dict[str, float] = {}
        self.facts: dict[str, str] = {}

    def mark(self, phase: str) -> None:
        """End *phase*, which lasted since the previous mark."""
        now = time.monotonic()
        self.spend(phase, now - self._last)
        self._last = now

    def spend(self, phase: str, seconds: float) -> None:
        """Add *seconds* to *phase*, for a duration measured elsewhere."""
        self.durations[phase] = self.durations.get(phase, 0.0) + seconds

    def account(self, phase: str) -> None:
        """Add to *phase* the time since the start that belongs to no other phase."""
        self.spend(phase, max(0.0, self.elapsed_s() - sum(self.durations.values())))

    def note(self, name: str, text: str) -> None:
        """Add an entry other than a duration."""
        self.facts[name] = text

    def elapsed_s(self) -> float:
        """Return the seconds since the work began."""
        return time.monotonic() - self._start

    def close(self, *, revision: str) -> None:
        """Add the total, and the *revision* that answered."""
        self.durations["total"] = self.elapsed_s()
        self.facts["rev"] = revision

    def header(self) -> tuple[bytes, bytes]:
        """Return the Server-Timing header."""
        entries = [f"{phase};dur={seconds * 1000:.3f}" for phase, seconds in self.durations.items()]
        entries += [f'{name};desc="{text}"' for name, text in self.facts.items()]
        return HEADER, ", ".join(entries).encode("latin-1", "replace")


def parse_receipt(value: str) -> tuple[dict[str, float], dict[str, str]]:
    """Return the durations (seconds) and the facts of a Server-Timing value, without its malformed entries."""
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
