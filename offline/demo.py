"""
The demo data set: 1000 users, 1000 films, about 50,000 interactions, and a known structure.

Every user has a first and a second taste among ten genres; the first depends on the age group. Three of four actions
concern films of the first taste, so a trained model recommends these films. The tests use this as their known answer.
All draws use `random()` of `random.Random`, which gives the same numbers on every platform and Python version.
"""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from recrank.artefact import Item
from recsys.features import AGE_GROUPS, CLICK_POINTS, PURCHASE_POINTS, VIEW_POINTS
from recsys.records import HistoryItem, UserRecord

USERS, ITEMS = 1000, 1000

_WORDS = {
    "Science Fiction": (
        "Orbital Stellar Quantum Silent Distant Binary Frozen Solar Drifting Final",
        "Signal Colony Horizon Machine Voyage Paradox Station Eclipse Protocol Dawn",
    ),
    "Mystery": (
        "Missing Crimson Hidden Midnight Locked Velvet Borrowed Second Quiet Broken",
        "Witness Alibi Letter Room Inheritance Clue Portrait Stranger Ledger Key",
    ),
    "Romance": (
        "Summer Autumn Paper Golden Secret Parisian Tender Winter First Unsent",
        "Promise Kiss Waltz Letters Garden Wedding Heart Harbour Reunion Morning",
    ),
    "Comedy": (
        "Clumsy Accidental Reluctant Noisy Part-Time Lucky Awkward Runaway Overdue Spare",
        "Butler Roommate Honeymoon Landlord Detective Vacation Llama Wedding Neighbour Genius",
    ),
    "Horror": (
        "Hollow Whispering Buried Rotting Pale Unquiet Drowned Cursed Nameless Black",
        "House Doll Cellar Orchard Choir Lake Child Mirror Hour Tide",
    ),
    "History": (
        "Iron Lost Imperial Burning Marble Last Northern Exiled Crowned Forgotten",
        "Empire Siege Queen Legion Treaty Bridge Chronicle Rebellion Merchant Throne",
    ),
    "Nature": (
        "Wild Hidden Deep Arctic Ancient Living Shifting Tropical Migrating Emerald",
        "Ocean Forest River Wolves Desert Reef Mountain Wings Savannah Islands",
    ),
    "Thriller": (
        "Double Deadly Cold Zero Fatal Rogue Burned Silent Covert Hostile",
        "Agent Exchange Target Asset Border Hour Witness Code Pursuit Extraction",
    ),
    "Fantasy": (
        "Enchanted Shattered Moonlit Elder Wandering Thorned Silver Sleeping Forbidden Ember",
        "Crown Dragon Sword Tower Prophecy Forest Gate Sorcerer Throne Oath",
    ),
    "Music": (
        "Electric Midnight Blue Broken Unplugged Velvet Southern Echoing Faded Restless",
        "Chord Ballad Encore Rhythm Saxophone Tour Studio Melody Jukebox Overture",
    ),
}
GENRES = tuple(_WORDS)
_PER_GENRE = ITEMS // len(GENRES)
_AGE_SHARES = (0.06, 0.22, 0.27, 0.19, 0.13, 0.13)

_START_S = 1_759_276_800  # 2025-10-01
_DAYS = 90
_SECOND_TASTE, _NO_TASTE = 0.15, 0.10
_CLICK, _PURCHASE = 0.25, 0.07


@dataclass(frozen=True)
class Demo:
    """
    The data set and its known structure.

    Attributes:
        records: One record per user, `user_1` first, ordered by user id.
        items: `item_0` … `item_999`; genre g has the hundred rows that begin at 100 g.
        tastes: First genre of each user.
    """

    records: list[UserRecord]
    items: list[Item]
    tastes: dict[str, str]


def make_demo(seed: int = 7) -> Demo:
    """Return the data set for *seed*; the same seed gives the same data."""
    random = Random(seed)  # noqa: S311 - data, not secrets
    tastes: dict[str, str] = {}
    records = []
    for number in range(1, USERS + 1):
        user = _User(f"user_{number}", random)
        records.append(user.live())
        tastes[user.user_id] = GENRES[user.tastes[0]]
    return Demo(sorted(records, key=lambda record: record.user_id), _make_items(), tastes)


def _make_items() -> list[Item]:
    titles = [
        (f"{first} {second}", genre)
        for genre, (firsts, seconds) in _WORDS.items()
        for first in firsts.split()
        for second in seconds.split()
    ]
    return [Item(f"item_{row}", f"The {title}", {"category": (genre,)}) for row, (title, genre) in enumerate(titles)]


class _User:
    """A simulated user, who draws a profile and then acts in sessions."""

    def __init__(self, user_id: str, random: Random) -> None:
        self.user_id = user_id
        self._random = random
        age = _draw(random, _AGE_SHARES)
        # Each age group prefers three genres, so the age group is informative about the taste.
        leaning = [(age * len(GENRES) // 6 + step) % len(GENRES) for step in range(3)]
        first = leaning[int(random.random() * 3)] if random.random() < 0.7 else int(random.random() * len(GENRES))
        second = (first + 1 + int(random.random() * (len(GENRES) - 1))) % len(GENRES)
        self.tastes = (first, second)
        self._age_group = AGE_GROUPS[age]
        self._eagerness = 0.5 + random.random()
        self._counts = {"views": 0, "clicks": 0, "purchases": 0}
        self._ties: dict[str, tuple[float, int]] = {}
        self._newest_us = 0

    def live(self) -> UserRecord:
        """Simulate all sessions and return the record that a store would hold afterwards."""
        sessions = 5 + int(self._random.random() * 11 * self._eagerness)
        session_ms = sum(self._spend_session() for _ in range(sessions))
        history = [HistoryItem(item_id, weight, time_us) for item_id, (weight, time_us) in self._ties.items()]
        return UserRecord(
            self.user_id,
            self._age_group,
            views=self._counts["views"],
            clicks=self._counts["clicks"],
            purchases=self._counts["purchases"],
            sessions=sessions,
            session_ms=session_ms,
            as_of_us=self._newest_us,
            history=sorted(history, key=lambda item: (-item.time_us, item.item_id)),
        )

    def _spend_session(self) -> int:
        """Simulate the actions of a session and return its length in milliseconds."""
        moment_s = _START_S + int(self._random.random() * _DAYS * 86_400)
        began_s = moment_s
        for _ in range(2 + int(self._random.random() * 7 * self._eagerness)):
            self._act(moment_s * 1_000_000)
            moment_s += 20 + int(self._random.random() * 200)
        return (moment_s - began_s) * 1000

    def _act(self, time_us: int) -> None:
        item_id = f"item_{self._choose()}"
        chance = self._random.random()
        if chance < _PURCHASE:
            kind, points = "purchases", PURCHASE_POINTS
        elif chance < _PURCHASE + _CLICK:
            kind, points = "clicks", CLICK_POINTS
        else:
            kind, points = "views", VIEW_POINTS
        self._counts[kind] += 1
        weight, newest_us = self._ties.get(item_id, (0.0, 0))
        self._ties[item_id] = (weight + points, max(newest_us, time_us))
        self._newest_us = max(self._newest_us, time_us)

    def _choose(self) -> int:
        """Draw a genre by taste, then a film by its popularity in that genre; return its row."""
        chance = self._random.random()
        if chance < _NO_TASTE:
            genre = int(self._random.random() * len(GENRES))
        else:
            genre = self.tastes[chance < _NO_TASTE + _SECOND_TASTE]
        return genre * _PER_GENRE + _draw(self._random, _POPULARITY)


_POPULARITY = tuple(1 / (rank + 6) for rank in range(_PER_GENRE))
_CUMULATED = {shares: tuple(accumulate(shares)) for shares in (_POPULARITY, _AGE_SHARES)}


def _draw(random: Random, shares: Sequence[float]) -> int:
    cumulated = _CUMULATED[tuple(shares)]
    return min(bisect(cumulated, random.random() * cumulated[-1]), len(cumulated) - 1)
