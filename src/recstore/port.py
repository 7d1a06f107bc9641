"""
The interface of feature stores.

For each user a store holds a profile, counters, and the items of the user's interactions. It never holds features:
`recsys.features` computes those from this state.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from enum import StrEnum
from typing import Protocol

from recstore.erasures import Erasure, Removed
from recsys.contracts.wire import Features
from recsys.declaration.types import Declaration
from recsys.records import Interaction, KnownUser, UserRecord, UserUpdate

QUICK_BYTES = 64 * 2**20
"""The largest store that is written whole while it serves, which takes less than a second of CPU."""


class StoreError(Exception):
    """Base of all store errors; `retryable` tells whether the same call may succeed later."""

    retryable = False


class StoreUnavailableError(StoreError):
    """The store did not answer or is locked; the same call may succeed later."""

    retryable = True


class StoreMissingError(StoreError):
    """The store does not exist, or holds nothing although it should."""


class StoreFormatError(StoreError):
    """The store exists and holds data that this version cannot read."""


class EventOutcome(StrEnum):
    """The result of an event: it changed the user, it changed nothing because it is repeated or old, or its user is erased."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    ERASED = "erased"


class FeatureStore(Protocol):
    """
    A feature store. Every implementation passes tests/stores/test_conformance.py.

    A method raises `StoreUnavailableError` if the store cannot answer now or is closed, and `StoreFormatError` if it
    finds data that it cannot read.
    """

    async def read(self, user_ids: Sequence[str], *, history: int) -> list[KnownUser | None]:
        """
        Return each user in the order of *user_ids*, None for an unknown user.

        Each has at most the newest *history* items. The call takes one round trip for any number of users.
        """
        ...

    async def record(self, user_id: str) -> UserRecord | None:
        """Return the whole record of a user, as people look at it; None for an unknown user."""
        ...

    async def apply(self, interactions: Sequence[Interaction]) -> list[EventOutcome]:
        """
        Count each of *interactions* once; tell for each whether it was new, repeated, or of an erased user.

        The store keeps nothing of an interaction that an erasure refuses (`Erasure.refuses`).

        A user's record depends only on the set of events applied, not on their order, their grouping or repeated
        deliveries. Source and id identify an event. If two users share an event, it counts for both. A store recognises a
        repeated event for its deduplication window, which starts at the first delivery.

        After the call returns, the events survive the end of this process. If the call raises, some of them may be
        counted, and the caller may safely send all of them again.
        """
        ...

    async def update(self, updates: Sequence[UserUpdate]) -> list[EventOutcome]:
        """
        Take over the values of *updates*; tell for each whether it changed something, or is of an erased user.

        The newest value of each attribute counts, so the order and repeated deliveries change nothing. An update about
        an unknown user adds the user. The store keeps nothing of an update that an erasure refuses.

        After the call returns, the values survive the end of this process. If the call raises, the caller may safely
        send all updates again.
        """
        ...

    async def population(self) -> Features | None:
        """Return what to assume of a user that the store does not know; None before the first `replace`."""
        ...

    async def declaration(self) -> Declaration | None:
        """Return the declaration by which the store was filled; None if its filler gave none, or before that."""
        ...

    async def replace(
        self, records: Iterable[UserRecord], *, population: Features, declaration: Declaration | None = None
    ) -> int:
        """
        Replace the whole content by *records*, all or nothing; return their number.

        The store keeps *declaration*, by which the events in the records were weighed, and its erasures. It leaves out the
        records of erased users.

        If iterating over *records* raises, the content stays as it was. The same holds for `StoreFormatError`, raised
        for a counter below 0 or above `recstore.counters.MOST`. Replacements must not overlap.
        """
        ...

    def scan(self) -> AsyncIterator[UserRecord]:
        """Yield every record with its whole history, ordered by user id. Training and copying use it."""
        ...

    async def adopt(self, erasures: Iterable[Erasure]) -> Removed:
        """
        Take over those of *erasures* that are newer than the store's own; return what was removed.

        For each erased user, the store removes profile, counters, history and marks of events. The cost is that of
        reading all user ids, if there are new erasures.
        """
        ...

    async def erase(self, user_id: str, *, at_us: int) -> Removed:
        """
        Remove a user, and keep the erasure of *at_us*; return what was removed.

        A user who was readmitted after *at_us* stays. After the call returns, no instance reads the user, and no event
        brings the user back.
        """
        ...

    async def erasures(self) -> list[Erasure]:
        """Return the erasures and readmissions, in no particular order."""
        ...

    async def scrub(self, *, quickly: bool = False) -> bool:
        """
        Overwrite what removed data may have left in the files of the store; return whether that was done.

        The cost is that of writing the whole store. Writes of other processes wait, or fail as for a locked store.

        Args:
            quickly: Leave a store as it is if writing it takes long: above `QUICK_BYTES`.
        """
        ...

    async def aclose(self) -> None:
        """
        Close files and connections. A closed store stays closed, and may be closed again.

        A call in progress finishes or raises `StoreUnavailableError`.
        """
        ...
