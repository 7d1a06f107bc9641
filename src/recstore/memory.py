"""A feature store in the memory of the process, for tests and experiments. Its content ends with the process."""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from recstore.counters import DEDUPLICATION_WINDOW_S, count_interaction, countable, new_record, update_record
from recstore.erasures import Erasure, Removed, digest_user, list_erased
from recstore.port import EventOutcome, StoreUnavailableError
from recsys.contracts.wire import Features
from recsys.declaration.types import Declaration
from recsys.records import Interaction, KnownUser, UserRecord, UserUpdate


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
        self._seen: dict[str, dict[tuple[str, str], float]] = {}
        self._erasures: dict[str, Erasure] = {}
        self._population: Features | None = None
        self._declaration: Declaration | None = None
        self._closed = False

    async def read(self, user_ids: Sequence[str], *, history: int) -> list[KnownUser | None]:
        """Return each of *user_ids*."""
        self._check_open()
        found = (self._records.get(user_id) for user_id in user_ids)
        return [record.known(history=history) if record else None for record in found]

    async def record(self, user_id: str) -> UserRecord | None:
        """Return the record of a user."""
        self._check_open()
        return self._records.get(user_id)

    async def apply(self, interactions: Sequence[Interaction]) -> list[EventOutcome]:
        """Count *interactions*."""
        self._check_open()
        return [self._apply(interaction) for interaction in interactions]

    def _apply(self, interaction: Interaction) -> EventOutcome:
        erasure = self._erasures.get(digest_user(interaction.user_id))
        if erasure and erasure.refuses(interaction.time_us):
            return EventOutcome.ERASED
        seen = self._seen.setdefault(interaction.user_id, {})
        key, now = (interaction.source, interaction.event_id), self._clock()
        if seen.get(key, float("-inf")) > now - self._window_s:
            return EventOutcome.REPEATED
        seen[key] = now
        record = self._records.get(interaction.user_id) or new_record(interaction.user_id)
        self._records[interaction.user_id] = count_interaction(record, interaction)
        return EventOutcome.ACCEPTED

    async def update(self, updates: Sequence[UserUpdate]) -> list[EventOutcome]:
        """Take over the values of *updates*."""
        self._check_open()
        return [self._update(update) for update in updates]

    def _update(self, update: UserUpdate) -> EventOutcome:
        erasure = self._erasures.get(digest_user(update.user_id))
        if erasure and erasure.refuses(update.at_us):
            return EventOutcome.ERASED
        before = self._records.get(update.user_id)
        after = update_record(before or new_record(update.user_id), update)
        self._records[update.user_id] = after
        return EventOutcome.REPEATED if after == before else EventOutcome.ACCEPTED

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
        erased = list_erased(self._erasures.values())
        self._records = {
            record.user_id: record for record in countable(records) if digest_user(record.user_id) not in erased
        }
        self._seen.clear()
        self._population, self._declaration = population, declaration
        return len(self._records)

    async def scan(self) -> AsyncIterator[UserRecord]:
        """Yield every record by user id."""
        self._check_open()
        for user_id in sorted(self._records):
            yield self._records[user_id]

    async def adopt(self, erasures: Iterable[Erasure]) -> Removed:
        """Take over newer *erasures*."""
        self._check_open()
        for each in erasures:
            own = self._erasures.get(each.user)
            if own is None or own.at_us < each.at_us:
                self._erasures[each.user] = each
        erased = list_erased(self._erasures.values())
        doomed = [user_id for user_id in {*self._records, *self._seen} if digest_user(user_id) in erased]
        return sum(map(self._remove, doomed), Removed())

    async def erase(self, user_id: str, *, at_us: int) -> Removed:
        """Remove a user."""
        return await self.adopt([Erasure(digest_user(user_id), at_us)])

    def _remove(self, user_id: str) -> Removed:
        record, seen = self._records.pop(user_id, None), self._seen.pop(user_id, {})
        items = [*record.history, *record.avoided] if record else []
        return Removed(1 if record else 0, len(items), len(seen))

    async def erasures(self) -> list[Erasure]:
        """Return the erasures."""
        self._check_open()
        return list(self._erasures.values())

    async def scrub(self, *, quickly: bool = False) -> bool:
        """Do nothing, because there are no files."""
        return True

    async def aclose(self) -> None:
        """Refuse further calls."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError("the store was closed")
