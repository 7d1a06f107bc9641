"""Measure the calls of a feature store."""

import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from typing import TypeVar

from chassis.telemetry.instruments import Counter, Histogram, Instrument
from recstore.erasures import Erasure, Removed
from recstore.port import EventOutcome, FeatureStore, StoreError
from recsys import metrics
from recsys.contracts.wire import Features
from recsys.declaration.types import Declaration
from recsys.records import Interaction, KnownUser, UserRecord, UserUpdate

Result = TypeVar("Result")


class MeasuredStore:
    """Pass calls on to *store*, and measure `read`, `apply`, `update` and `erase`."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._durations = Histogram(metrics.STORE_DURATION)
        self._errors = Counter(metrics.STORE_ERRORS, known=[("read",), ("apply",), ("update",), ("erase",)])

    def instruments(self) -> list[Instrument]:
        """Return the metrics of the store."""
        return [self._durations, self._errors]

    async def read(self, user_ids: Sequence[str], *, history: int) -> list[KnownUser | None]:
        """Return each of *user_ids*."""
        return await self._measured("read", self._store.read(user_ids, history=history))

    async def apply(self, interactions: Sequence[Interaction]) -> list[EventOutcome]:
        """Count *interactions*."""
        return await self._measured("apply", self._store.apply(interactions))

    async def update(self, updates: Sequence[UserUpdate]) -> list[EventOutcome]:
        """Take over the values of *updates*."""
        return await self._measured("update", self._store.update(updates))

    async def population(self) -> Features | None:
        """Return the defaults for unknown users."""
        return await self._store.population()

    async def declaration(self) -> Declaration | None:
        """Return the declaration by which the store was filled."""
        return await self._store.declaration()

    async def replace(
        self, records: Iterable[UserRecord], *, population: Features, declaration: Declaration | None = None
    ) -> int:
        """Replace the whole content by *records*."""
        return await self._store.replace(records, population=population, declaration=declaration)

    def scan(self) -> AsyncIterator[UserRecord]:
        """Yield every record by user id."""
        return self._store.scan()

    async def adopt(self, erasures: Iterable[Erasure]) -> Removed:
        """Take over newer *erasures*."""
        return await self._store.adopt(erasures)

    async def erase(self, user_id: str, *, at_us: int) -> Removed:
        """Remove a user."""
        return await self._measured("erase", self._store.erase(user_id, at_us=at_us))

    async def erasures(self) -> list[Erasure]:
        """Return the erasures."""
        return await self._store.erasures()

    async def scrub(self, *, quickly: bool = False) -> bool:
        """Overwrite what removed data may have left."""
        return await self._store.scrub(quickly=quickly)

    async def aclose(self) -> None:
        """Close the store."""
        await self._store.aclose()

    async def _measured(self, operation: str, trip: Awaitable[Result]) -> Result:
        began = time.monotonic()
        try:
            return await trip
        except StoreError:
            self._errors.add(operation)
            raise
        finally:
            self._durations.observe(time.monotonic() - began, operation)
