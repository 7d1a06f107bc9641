"""The content of a queue in numbers."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct, json

from knbroker.delivery import Failure

_TRIGGERS: Final = """
SELECT trigger, COUNT(*) FILTER (WHERE dead_at IS NULL), COUNT(*) FILTER (WHERE dead_at IS NULL AND attempts > 0),
  COUNT(dead_at), MIN(accepted_at) FILTER (WHERE dead_at IS NULL)
FROM deliveries JOIN events ON seq = event GROUP BY trigger
"""
_DEAD: Final = """
SELECT trigger, dead_at, attributes, failure FROM deliveries JOIN events ON seq = event
WHERE dead_at IS NOT NULL ORDER BY dead_at DESC LIMIT ?
"""

Query = Callable[[str, Sequence[Any]], Awaitable[list[Any]]]


class BrokerFigures(Struct, frozen=True):
    """
    The content of the file in numbers.

    Attributes:
        counts: Totals by kind (`accepted`, `delivered`, `failed`) and Broker or Trigger.
        queued: By Trigger: waiting deliveries, those of them that failed before, dead letters, and the time at which
            the oldest waiting event was accepted.
        dead_letters: Dead letters as plain data.
    """

    counts: Mapping[tuple[str, str], int]
    queued: Mapping[str, tuple[Any, ...]]
    dead_letters: Sequence[Mapping[str, Any]]

    def of(self, trigger: str) -> dict[str, Any]:
        """Return the figures of a Trigger."""
        waiting, retrying, dead, oldest = self.queued.get(trigger, (0, 0, 0, None))
        counted = {what: self.counts.get((what, trigger), 0) for what in ("delivered", "failed")}
        since_s = max(0.0, time.time() - oldest) if oldest else None
        return {**counted, "waiting": waiting, "retrying": retrying, "dead": dead, "oldest_s": since_s}


async def read_figures(query: Query, *, letters: int) -> BrokerFigures:
    """Count the deliveries in the file that *query* reads, and describe up to *letters* of the newest dead letters."""
    counts = {(what, who): value for what, who, value in await query("SELECT * FROM counts", ())}
    queued = {name: tuple(rest) for name, *rest in await query(_TRIGGERS, ())}
    dead_letters = [
        {"trigger": trigger, "at": at, "event": json.decode(attributes), "failure": _shown(failure)}
        for trigger, at, attributes, failure in await query(_DEAD, [letters])
    ]
    return BrokerFigures(counts, queued, dead_letters)


def _shown(failure: str) -> dict[str, Any]:
    found = json.decode(failure, type=Failure)
    return {"destination": found.destination, "code": found.code, "reason": found.data.decode(errors="replace")}
