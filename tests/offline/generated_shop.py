"""
A generated shop in which a declared feature decides.

Users view any items, and in the end items of the style that their attribute names, so that their history cannot tell it.
In the other shop, they view items that were published within the last days.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recsys.declaration.reader import parse_declaration
from recsys.declaration.types import Declaration
from recsys.items import Item
from recsys.records import HistoryItem, UserRecord, imported

DAY_US = 86_400_000_000
STYLES, ITEMS, USERS, VISITS, DAYS = 8, 300, 200, 10, 60
START_US = 1_700_000_000_000_000

BASE = """
[events.view]
weight = 1

[items.attributes]
style = { kind = "categorical" }
colour = { kind = "categorical" }
published = { kind = "time" }

[users.attributes]
favourite = { kind = "categorical" }
"""
MATCH = '[features.style_fits]\nkind = "match"\nattribute = "style"\nuser_attribute = "favourite"\n'
AGE = '[features.age]\nkind = "time_since"\nattribute = "published"\n'
NOISE = '[features.colour_fits]\nkind = "match"\nattribute = "colour"\n'


@dataclass(frozen=True)
class Shop:
    records: list[UserRecord]
    items: Mapping[str, Item]


def make_shop(*, in_style: int = 0, by_age: bool = False, seed: int = 0) -> Shop:
    """Return users whose newest *in_style* views are of their favourite style, or who view new items."""
    rng = np.random.default_rng(seed)
    styles, colours = rng.integers(STYLES, size=ITEMS), rng.integers(3, size=ITEMS)
    published = START_US + np.sort(rng.integers(DAYS * DAY_US, size=ITEMS))
    items = {
        f"i{row:03}": Item(
            f"i{row:03}",
            "",
            {
                "style": (f"s{styles[row]}",),
                "colour": (f"c{colours[row]}",),
                "published": (repr(int(published[row]) / 1_000_000),),
            },
        )
        for row in range(ITEMS)
    }
    records = []
    for user in range(USERS):
        favourite = int(rng.integers(STYLES))
        seen: dict[str, HistoryItem] = {}
        times = np.sort(START_US + rng.integers(2 * DAY_US, DAYS * DAY_US, VISITS)).tolist()
        for place, at_us in enumerate(times):
            able = np.ones(ITEMS, np.bool_)
            if place >= VISITS - in_style:
                able &= styles == favourite
            if by_age and rng.random() < 0.9:
                able &= (published <= at_us) & (published > at_us - 3 * DAY_US)
            chosen = rng.choice(np.flatnonzero(able) if able.any() else np.arange(ITEMS))
            seen[f"i{chosen:03}"] = HistoryItem(f"i{chosen:03}", 1.0, at_us)
        history = sorted(seen.values(), key=lambda item: (-item.time_us, item.item_id))
        records.append(
            UserRecord(
                f"u{user:03}",
                "unknown",
                views=VISITS,
                as_of_us=history[0].time_us,
                history=history,
                attributes=imported({"favourite": (f"s{favourite}",)}),
            )
        )
    return Shop(records, items)


def declare(*features: str) -> Declaration:
    return parse_declaration("\n".join([BASE, *features]), "shop.toml")
