"""
The interface of feature stores.

For each user a store holds a profile, counters, and the items of the user's interactions. It never holds features:
`recsys.features` computes those from this state.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

from recsys.contracts.wire import Features
from recsys.declaration.types import Declaration
from recsys.records import Interaction, KnownUser, UserRecord


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

    async def apply(self, interactions: Sequence[Interaction]) -> list[bool]:
        """
        Count each of *interactions* once; tell for each whether it was new.

        A user's record depends only on the set of events applied, not on their order, their grouping or repeated
        deliveries. (source, id) identifies an event. Two users must not share an event; a store may count the second
        or not. A store recognises a repeated event for its deduplication window, which starts at the first delivery.

        After the call returns, the events survive the end of this process. If the call raises, some of them may be
        counted, and the caller may safely send all of them again.
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

        The store keeps *declaration*, by which the events in the records were weighed.

        If iterating over *records* raises, the content stays as it was. The same holds for `StoreFormatError`, raised
        for a counter below 0 or above `recsys.stores.counters.MOST`. Replacements must not overlap.
        """
        ...

    def scan(self) -> AsyncIterator[UserRecord]:
        """Yield every record with its whole history, ordered by user id. Training and copying use it."""
        ...

    async def aclose(self) -> None:
        """
        Close files and connections. A closed store stays closed, and may be closed again.

        A call in progress finishes or raises `StoreUnavailableError`.
        """
        ...
