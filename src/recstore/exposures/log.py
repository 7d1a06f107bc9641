"""
The interface of exposure logs.

A log is in the same place as a feature store, so that the erasures of the store govern both: the store removes the
entries of an erased user together with the user, and the log refuses later ones.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from recstore.exposures.join import DAY_S
from recstore.exposures.records import Entry, ExposureOutcome
from recstore.port import EventOutcome

RETENTION_S = 30 * DAY_S
MOST_PER_USER = 1000


class ExposureLog(Protocol):
    """
    Exposures, actions, and their join. Every implementation passes tests/exposures/test_logs.py.

    A log forgets entries that are older than its retention, and keeps the newest exposures and the newest actions of
    each user, up to its limit. Methods raise `StoreError`s as those of `FeatureStore` do.
    """

    async def note(self, entries: Sequence[Entry]) -> list[EventOutcome]:
        """
        Keep each of *entries*; tell for each action and each answer whether it was new, repeated, or of an erased user.

        The answers of a group count as repeated if the log has a group with its key.

        After the call returns, the entries survive the end of this process. If the call raises, some of them may be
        kept, and the caller may safely send all of them again.
        """
        ...

    def scan(self, *, window_s: float = DAY_S) -> AsyncIterator[ExposureOutcome]:
        """Yield every exposure with its outcomes (`recstore.exposures.join`), those of a user together and oldest first."""
        ...

    async def aclose(self) -> None:
        """Close files and connections."""
        ...
