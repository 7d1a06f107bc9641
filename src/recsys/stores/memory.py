"""A feature store in the memory of the process, for tests and experiments. Its content ends with the process."""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from recsys.contracts.wire import Features
from recsys.declaration.types import Declaration
from recsys.records import Interaction, KnownUser, UserRecord
from recsys.stores.counters import DEDUPLICATION_WINDOW_S, count_interaction, countable, new_record
from recsys.stores.port import StoreUnavailableError


class MemoryStore:
    """
    Keep records in dictionaries.

    Args:
        window_s: Seconds during which a repeated event is recognised.
        clock: Seconds since the epoch.
    """

    def __init__(self, *, window_s: float = DEDUPLICATION_WINDOW_S, clock: Callable[[], float] = time.time) -> None:
        self._window_s = window_s
        self._clock = clock
        self._records: dict[str, UserRecord] = {}
        self._seen: dict[tuple[str, str], float] = {}
        self._population: Features | None = None
        self._declaration: Declaration | None = None
        self._closed = False

    async def read(self, user_ids: Sequence[str], *, history: int) -> list[KnownUser | None]:
        """Return each of *user_ids*."""
        self._check_open()
        found = (self._records.get(user_id) for user_id in user_ids)
        return [record.known(history=history) if record else None for record in found]

    async def apply(self, interactions: Sequence[Interaction]) -> list[bool]:
        """Count *interactions*."""
        self._check_open()
        return [self._apply(interaction) for interaction in interactions]

    def _apply(self, interaction: Interaction) -> bool:
        key, now = (interaction.source, interaction.event_id), self._clock()
        if self._seen.get(key, float("-inf")) > now - self._window_s:
            return False
        self._seen[key] = now
        record = self._records.get(interaction.user_id) or new_record(interaction.user_id)
        self._records[interaction.user_id] = count_interaction(record, interaction)
        return True

    async def population(self) -> Features | None:
        """Return the defaults for unknown users."""
        self._check_open()
        return self._population

    async def declaration(self) -> Declaration | None:
        """Return the declaration by which the store was filled."""
        self._check_open()
        return self._declaration

    async def replace(
        self, records: Iterable[UserRecord], *, population: Features, declaration: Declaration | None = None
    ) -> int:
        """Replace the whole content by *records*."""
        self._check_open()
        self._records = {record.user_id: record for record in countable(records)}
        self._seen.clear()
        self._population, self._declaration = population, declaration
        return len(self._records)

    async def scan(self) -> AsyncIterator[UserRecord]:
        """Yield every record by user id."""
        self._check_open()
        for user_id in sorted(self._records):
            yield self._records[user_id]

    async def aclose(self) -> None:
        """Refuse further calls."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError("the store was closed")
