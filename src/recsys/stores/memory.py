"""A feature store in this process's memory: for tests and for trying things out. It forgets when the process ends."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from recsys.contracts.wire import Features
from recsys.features import NOBODY
from recsys.stores.port import UserRecord


class MemoryStore:
    """The port over a dictionary."""

    def __init__(self) -> None:
        self._records: dict[str, UserRecord] = {}
        self._population = NOBODY

    async def read(self, user_ids: Sequence[str], *, history: int) -> list[UserRecord | None]:
        """Return the records of *user_ids*."""
        found = (self._records.get(user_id) for user_id in user_ids)
        return [record and msgspec.structs.replace(record, history=record.history[:history]) for record in found]

    async def population(self) -> Features:
        """Return the defaults for unknown users."""
        return self._population

    async def replace(self, records: Iterable[UserRecord], *, population: Features) -> int:
        """Make *records* the whole content."""
        self._records = {record.user_id: record for record in sorted(records, key=lambda record: record.user_id)}
        self._population = population
        return len(self._records)

    def scan(self) -> Iterator[UserRecord]:
        """Yield every record by user id."""
        yield from self._records.values()

    async def aclose(self) -> None:
        """Nothing to let go of."""
