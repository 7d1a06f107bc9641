"""
People with planted tastes and position bias, who see lists and click on items.

A person clicks on an item with the probability activity x taste x attention. The taste depends on the category of the item,
the attention on the position alone. A click depends on the seed, the person, the number of the list and the item, and not on
the time or the order of the answers, so a run can be repeated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from offline.demo import make_demo
from recsys.experiments.assignment import point

LIKED, OTHER = 0.5, 0.05


@dataclass(frozen=True)
class People:
    """
    Simulated people.

    Attributes:
        favourites: The favourite category of each person.
        categories: The category of each item. An item without a category suits the taste of no person.
        bias: Position p, from 1, gets the attention p ** -bias.
        seed: Seed of the clicks.
        activity: The activity of people who click more or less often than others, whose activity is 1.
    """

    favourites: Mapping[str, str]
    categories: Mapping[str, str]
    bias: float = 0.7
    seed: int = 0
    activity: Mapping[str, float] = field(default_factory=dict)

    def chance(self, user_id: str, item_id: str, position: int) -> float:
        """Return the probability that the person clicks on the item at *position*, from 1."""
        taste = LIKED if self.categories.get(item_id) == self.favourites[user_id] else OTHER
        return float(self.activity.get(user_id, 1.0) * taste * position**-self.bias)

    def matching(self, user_id: str, item_ids: Sequence[str]) -> float:
        """Return the share of *item_ids* in the favourite category of the person; 0 without items."""
        matches = sum(self.categories.get(item_id) == self.favourites[user_id] for item_id in item_ids)
        return matches / max(1, len(item_ids))

    def search(self, user_id: str, number: int) -> str:
        """Return the item of the favourite category that search *number* of the person finds."""
        liked = [item_id for item_id, category in self.categories.items() if category == self.favourites[user_id]]
        return liked[int(point(f"{self.seed}/{number}/search", user_id) * len(liked))]

    def shifted(self) -> "People":
        """Return the same people with other tastes: people of a category prefer the next category."""
        names = sorted(set(self.favourites.values()))
        following = dict(zip(names, [*names[1:], names[0]], strict=True))
        return replace(self, favourites={user_id: following[name] for user_id, name in self.favourites.items()})

    def expected_clicks(self, user_id: str, item_ids: Sequence[str]) -> float:
        """Return the expected number of clicks on a list."""
        return sum(self.chance(user_id, item_id, position) for position, item_id in enumerate(item_ids, 1))

    def clicks(self, user_id: str, item_ids: Sequence[str], number: int) -> list[str]:
        """Return the items that the person clicks on in list *number*."""
        return [
            item_id
            for position, item_id in enumerate(item_ids, 1)
            if point(f"{self.seed}/{number}/{item_id}", user_id) < self.chance(user_id, item_id, position)
        ]


def demo_people(*, bias: float, seed: int) -> People:
    """Return the users of the demo data, each with the taste that the demo planted."""
    demo = make_demo()
    return People(demo.tastes, {item.item_id: item.attributes["category"][0] for item in demo.items}, bias, seed)
