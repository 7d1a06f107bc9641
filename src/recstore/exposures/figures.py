"""Figures of what was shown and what came of it, by model and arm."""

from collections import Counter
from collections.abc import Callable

from msgspec import Struct

from recstore.exposures.records import ExposureOutcome

ANY_MODEL = "popular list"

Key = tuple[str | None, str | None, str | None, str | None]


class ArtefactFacts(Struct, frozen=True):
    """
    The facts of an artefact that figures need.

    Attributes:
        items: Number of items that it can show.
        learned: Items with interactions in its training; all others are new.
        written_us: Time at which it was written, microseconds since the epoch.
    """

    items: int
    learned: frozenset[str]
    written_us: int


class Figures(Struct, frozen=True):
    """
    The figures of one model in one arm. The last three need the facts of the artefact.

    Attributes:
        model: Name of the artefact; `ANY_MODEL` for answers that none ranked.
        version: Version of the artefact.
        experiment: The experiment, if any.
        arm: The arm of the experiment.
        exposures: Answers.
        users: Users with an answer.
        items: Different items that were shown.
        click_through: Share of the answers with an item that the user acted on, with a kind of a weight above 0.
        conversion: Share of the answers with an item that the user acted on with a kind counted as a purchase.
        coverage: Share of the items of the artefact that were shown.
        new_items: Share of the shown items that had no interactions in the training.
        staleness_s: Mean age of the artefact when it was shown, seconds.
    """

    model: str
    version: str | None
    experiment: str | None
    arm: str | None
    exposures: int
    users: int
    items: int
    click_through: float
    conversion: float
    coverage: float | None
    new_items: float | None
    staleness_s: float | None


class Tally:
    """
    Counts the exposures of one model in one arm.

    Args:
        clicks: Kinds that count as a click.
        purchases: Kinds that count as a purchase.
    """

    def __init__(self, *, clicks: frozenset[str], purchases: frozenset[str]) -> None:
        self._clicks, self._purchases = clicks, purchases
        self._users: set[str] = set()
        self._shown: Counter[str] = Counter()
        self._exposures = self._clicked = self._bought = self._time_us = 0

    def add(self, exposure: ExposureOutcome) -> None:
        """Count *exposure*."""
        kinds = {kind for item in exposure.items for kind in item.outcomes}
        self._exposures += 1
        self._clicked += bool(kinds & self._clicks)
        self._bought += bool(kinds & self._purchases)
        self._time_us += exposure.time_us
        self._users.add(exposure.user_id)
        self._shown.update(item.item_id for item in exposure.items)

    def figures(self, key: Key, facts: ArtefactFacts | None) -> Figures:
        """Return the figures, with those of the artefact if *facts* are known."""
        model, version, experiment, arm = key
        coverage = new = staleness_s = None
        if facts:
            known = sum(count for item, count in self._shown.items() if item in facts.learned)
            coverage = min(1.0, len(self._shown) / max(1, facts.items))
            new = 1 - known / self._shown.total() if self._shown else 0.0
            staleness_s = self._time_us / self._exposures / 1e6 - facts.written_us / 1e6
        return Figures(
            model or ANY_MODEL,
            version,
            experiment,
            arm,
            exposures=self._exposures,
            users=len(self._users),
            items=len(self._shown),
            click_through=self._clicked / self._exposures,
            conversion=self._bought / self._exposures,
            coverage=coverage,
            new_items=new,
            staleness_s=staleness_s,
        )


def compute_figures(tallies: dict[Key, Tally], facts_of: Callable[[str | None], ArtefactFacts | None]) -> list[Figures]:
    """Return the figures of each of *tallies*, those of one experiment together; *facts_of* takes a version."""

    def order(key: Key) -> list[str]:
        model, version, experiment, arm = key
        return [experiment or "", arm or "", model or "", version or ""]

    return [tallies[key].figures(key, facts_of(key[1])) for key in sorted(tallies, key=order)]
