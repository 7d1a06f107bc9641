"""How far two rankings of the same request agree."""

from collections.abc import Sequence
from itertools import combinations


def overlap(one: Sequence[str], other: Sequence[str]) -> float:
    """Return the share of *one* that *other* holds as well."""
    return len({*one} & {*other}) / len({*one})


def correlation(one: Sequence[str], other: Sequence[str]) -> float | None:
    """
    Return Kendall's tau of two rankings over the items they share: 1 for the same order, -1 for the reverse.

    None if they share fewer than two items. Cost: k² / 2 comparisons for k shared items.
    """
    place = {item: rank for rank, item in enumerate(other)}
    ranks = [place[item] for item in one if item in place]
    if len(ranks) < 2:
        return None
    signs = [1 if first < second else -1 for first, second in combinations(ranks, 2)]
    return sum(signs) / len(signs)
