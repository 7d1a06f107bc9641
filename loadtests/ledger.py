"""Users' histories as the load test knows them, to detect answers that repeat an item of the history."""

import random
from collections.abc import Iterable

# The pipeline reads a user's newest 1000 items. The ledger keeps fewer, so the pipeline knows every item in it.
_MAX_ITEMS = 900
_MAX_OFFERS = 1000


class Ledger:
    """The items in each user's history: read from the feature store at the start, extended by accepted events."""

    def __init__(self) -> None:
        self._items: dict[str, dict[str, None]] = {}
        self._offers: dict[str, tuple[str, ...]] = {}

    @property
    def users(self) -> int:
        """Number of users with a known history."""
        return len(self._items)

    def learn(self, user_id: str, newest_first: Iterable[str]) -> None:
        """Add a history in the order in which extract_features returns it."""
        for item_id in reversed(list(newest_first)):
            self.accept(user_id, item_id)

    def accept(self, user_id: str, item_id: str) -> None:
        """Add the item of an interaction that the pipeline has accepted."""
        items = self._items.setdefault(user_id, {})
        items.pop(item_id, None)
        items[item_id] = None
        if len(items) > _MAX_ITEMS:
            del items[next(iter(items))]

    def known(self, user_id: str) -> frozenset[str]:
        """Return the user's known items. The answer to a request sent after this call must contain none of them."""
        return frozenset(self._items.get(user_id, ()))

    def offer(self, user_id: str, item_ids: Iterable[str]) -> None:
        """Remember the items that a user was shown, as candidates for a later click."""
        self._offers.pop(user_id, None)
        self._offers[user_id] = tuple(item_ids)
        if len(self._offers) > _MAX_OFFERS:
            del self._offers[next(iter(self._offers))]

    def take_offer(self, rng: random.Random) -> tuple[str, str] | None:
        """Remove the oldest offer and return its user and one of its items; None without an offer."""
        while self._offers:
            user_id = next(iter(self._offers))
            items = self._offers.pop(user_id)
            if items:
                return user_id, rng.choice(items)
        return None
