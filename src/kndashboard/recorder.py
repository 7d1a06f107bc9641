"""Record a snapshot of the platform every second."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kndashboard.columns import column
from kndashboard.history import SnapshotHistory
from kndashboard.interval import SnapshotInterval
from kndashboard.ring import SPANS, RingFile
from kndashboard.snapshots import Exposed, Snapshot
from localkn.errors import LocalknError

# After a longer pause, the counts between two snapshots would make a false peak.
_LONGEST_S = 5.0
_PAUSE_S = 10.0


class SnapshotRecorder:
    """
    Writes what happens between two snapshots into the file.

    Args:
        recent: The snapshots.
        ring: The file.
        clock: Returns the seconds since the epoch.
    """

    def __init__(self, recent: SnapshotHistory, ring: RingFile, *, clock: Callable[[], float] = time.time) -> None:
        self._recent, self._ring, self._clock = recent, ring, clock
        self._last: Snapshot | None = None
        self._is_told = False

    async def run(self) -> None:
        """Record once a second until cancelled."""
        while True:
            # In the middle of a second, a small delay does not move the snapshot into another slot.
            await asyncio.sleep(1.0 - (self._clock() - 0.5) % 1.0)
            try:
                _, now = await self._recent.window()
                self.record(now)
                self._is_told = False
            except LocalknError:
                self._last = None
            except OSError as error:
                self._tell(f"the history cannot be written: {error.strerror}")

    def record(self, now: Snapshot) -> None:
        """
        Record the time since the last snapshot that was recorded.

        Raises:
            OSError: The file cannot be written.
        """
        at, before = self._clock(), self._last
        self._last = now = _with_known(now, before)
        if before is None:
            if not any(self._ring.read(SPANS[0], at - _PAUSE_S, at)):
                self._ring.mark(at, "the pipeline starts")
            return
        for text in _events(before, now):
            self._ring.mark(at, text)
        if 0.0 < now.at - before.at <= _LONGEST_S:
            span = SnapshotInterval(before, now)
            self._ring.add(at, {name: column(span, name, service) for name, service in now.services.items()})

    def _tell(self, text: str) -> None:
        if not self._is_told:
            print(text, file=sys.stderr, flush=True)
        self._is_told = True


def _with_known(now: Snapshot, before: Snapshot | None) -> Snapshot:
    """Keep the last known counts of an instance that was not read, so that the next interval does not count them twice."""
    pods = {labels["pod"] for labels, _ in now.instances()}
    known: Mapping[str, Exposed] = before.scraped if before else {}
    return Snapshot(now.at, now.status, {**{p: e for p, e in known.items() if p in pods}, **now.scraped})


def _events(before: Snapshot, now: Snapshot) -> Iterator[str]:
    """Yield the deployments between two snapshots: new revisions, failed ones, and changes of traffic."""
    for name, service in now.services.items():
        former = before.services.get(name, {"revisions": ()})
        known = {revision["name"]: revision for revision in former["revisions"]}
        for revision in service["revisions"]:
            if revision["name"] not in known:
                yield f"{revision['name']} was created"
            elif revision["failure"] and not known[revision["name"]]["failure"]:
                yield f"{revision['name']} failed: {revision['failure']}"
        if known and (split := _split(service)) != _split(former):
            yield f"{name}: traffic to {split}"


def _split(service: Mapping[str, Any]) -> str:
    shares = [(revision["traffic_percent"], revision["name"]) for revision in service["revisions"]]
    return ", ".join(f"{name} {percent} %" for percent, name in shares if percent)
