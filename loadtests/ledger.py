"""What the load test knows of users' histories, so that it can tell when an answer repeats one of their items."""

import random
from collections.abc import Iterable

# The pipeline looks at a user's newest 1000 items; with fewer here, none that has already left its view is held against it.
_MAX_ITEMS = 900
_MAX_OFFERS = 1000


class Ledger:
    """Items each user surely has had: from the feature store at the start, then from events it accepted."""

    def __init__(self) -> None:
        self._items: dict[str, dict[str, None]] = {}
        self._offers: dict[str, tuple[str, ...]] = {}

    @property
    def users(self) -> int:
        """How many users something is known of."""
        return len(self._items)

    def learn(self, user_id: str, newest_first: Iterable[str]) -> None:
        """Enter a history as extract_features gives it."""
        for item_id in reversed(list(newest_first)):
            self.accept(user_id, item_id)

    def accept(self, user_id: str, item_id: str) -> None:
        """Enter an interaction the pipeline has accepted."""
        items = self._items.setdefault(user_id, {})
        items.pop(item_id, None)
        items[item_id] = None
        if len(items) > _MAX_ITEMS:
            del items[next(iter(items))]

    def known(self, user_id: str) -> frozenset[str]:
        """Return what the user has surely had by now: an answer to a request sent from now on has none of it."""
        return frozenset(self._items.get(user_id, ()))

    def offer(self, user_id: str, item_ids: Iterable[str]) -> None:
        """Note what a user was shown, so that somebody can click on it."""
        self._offers.pop(user_id, None)
        self._offers[user_id] = tuple(item_ids)
        if len(self._offers) > _MAX_OFFERS:
            del self._offers[next(iter(self._offers))]

    def take_offer(self, rng: random.Random) -> tuple[str, str] | None:
        """Return the user who waited longest with an offer, and one of its items; None where nobody has one."""
        while self._offers:
            user_id = next(iter(self._offers))
            items = self._offers.pop(user_id)
            if items:
                return user_id, rng.choice(items)
        return None
