"""A catalogue in the memory of the process, for tests."""

from collections.abc import Sequence

from recstore.catalogue.entries import Entry


class MemoryCatalogue:
    """Keep entries in a dictionary."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, Entry]] = {}
        self._revision = 0

    async def put(self, entries: Sequence[Entry]) -> list[bool]:
        """Merge *entries*."""
        return [self._put(entry) for entry in entries]

    def _put(self, entry: Entry) -> bool:
        _, before = self._entries.get(entry.item_id, (0, Entry(entry.item_id)))
        after = before.merge(entry)
        if after == before:
            return False
        self._revision += 1
        self._entries[entry.item_id] = self._revision, after
        return True

    async def read(self, *, after: int) -> tuple[int, list[Entry]]:
        """Return the revision and the changed entries."""
        return self._revision, [entry for revision, entry in self._entries.values() if revision > after]

    async def aclose(self) -> None:
        """Do nothing."""
