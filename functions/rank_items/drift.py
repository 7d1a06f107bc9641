"""
Counts how the requests of known users are distributed, in the buckets of the training data.

Prometheus computes the population stability index from these counts and from the shares of the training
(knative/monitoring/rules.yaml). Each `EVERY`th request is counted, so the cost of a request hardly changes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from chassis.telemetry.instruments import Instrument, Labels, Totals
from recrank.model import Query, Ranking
from recrank.reference import Reference, measure
from recsys import metrics

EVERY = 16
# Long histories would take most of the time.
_NEWEST = 20


@dataclass(frozen=True)
class _Counted:
    """The counts of an artefact. The thread that ranks changes the numbers while a scrape reads them."""

    reference: Reference
    version: str
    requests: dict[str, list[int]]

    @classmethod
    def of(cls, reference: Reference | None, version: str) -> "_Counted":
        known = reference or {}
        return cls(known, version, {name: [0] * len(each.shares) for name, each in known.items()})

    @property
    def counts(self) -> dict[Labels, float]:
        return self._labelled(self.requests)

    @property
    def shares(self) -> dict[Labels, float]:
        return self._labelled({name: each.shares for name, each in self.reference.items()})

    def _labelled(self, values: Mapping[str, Sequence[float]]) -> dict[Labels, float]:
        return {
            (name, str(bucket), self.version): value for name, own in values.items() for bucket, value in enumerate(own)
        }


class Drift:
    """
    Counts every `EVERY`th request.

    Args:
        reference: The distributions of the training; None if the artefact has none, and nothing is compared.
        version: Version of the artefact.
        knows: Tells whether the catalogue has an item.
    """

    def __init__(self, reference: Reference | None, *, version: str, knows: Callable[[str], bool]) -> None:
        self._counted = _Counted.of(reference, version)
        self._knows = knows
        self._asked = 0
        self._items = {"known": 0, "unknown": 0}

    def follow(self, reference: Reference | None, *, version: str) -> None:
        """Count from zero for another artefact."""
        self._counted = _Counted.of(reference, version)

    def watching(self, rank: Callable[[Sequence[Query]], list[Ranking]]) -> Callable[[Sequence[Query]], list[Ranking]]:
        """Return *rank*, which also counts what it ranks."""

        def watched(queries: Sequence[Query]) -> list[Ranking]:
            rankings = rank(queries)
            self.count(queries, rankings)
            return rankings

        return watched

    def count(self, queries: Sequence[Query], rankings: Sequence[Ranking]) -> None:
        """Count those *queries* whose turn it is."""
        first = EVERY - 1 - self._asked % EVERY
        self._asked += len(queries)
        for place in range(first, len(queries), EVERY):
            query = queries[place]
            # Sessions and similar items have no time of the newest interaction. They and filters have other scores.
            if query.as_of_us is not None and not query.filter:
                self._add(query, rankings[place])

    def _add(self, query: Query, ranking: Ranking) -> None:
        newest = query.history[:_NEWEST]
        known = sum(map(self._knows, newest))
        self._items["known"] += known
        self._items["unknown"] += len(newest) - known
        counted = self._counted
        for name, value in measure(query.features, ranking.scores).items():
            if (buckets := counted.reference.get(name)) is not None:
                counted.requests[name][buckets.place(value)] += 1

    def instruments(self) -> list[Instrument]:
        """Return the metrics of drift."""
        return [
            Totals(metrics.DRIFT_REQUESTS, lambda: self._counted.counts),
            Totals(metrics.DRIFT_EXPECTED, lambda: self._counted.shares),
            Totals(metrics.HISTORY_ITEMS, lambda: {(known,): count for known, count in self._items.items()}),
        ]
