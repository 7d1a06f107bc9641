"""
Distributions of the training data, to compare with those of the requests that a model serves.

Each measure has one value for each request of a known user: the features, and the score of the item in the fifth place
(the best item often has the same score in every list). The buckets of a measure hold about equal shares of the training
users.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from recsys.contracts.wire import Features
from recsys.features import place_of_age

SCORE = "score"
PLACE = 5

_BUCKETS = 10
_DIGITS = 6


class Buckets(Struct, frozen=True):
    """
    The distribution of a measure.

    Attributes:
        bounds: Rising; bucket b holds the values above bounds[b - 1] and up to bounds[b]. The last bucket has no end.
        shares: Share of the values in each bucket; one more than bounds.
    """

    bounds: list[float]
    shares: list[float]

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.bounds) + 1 or self.bounds != sorted(self.bounds):
            raise ValueError("the bounds of a distribution rise, and it has one share more than bounds")

    def place(self, value: float) -> int:
        """Return the bucket of *value*."""
        return bisect_left(self.bounds, value)


Reference = Mapping[str, Buckets]


def measure(features: Features, scores: Sequence[float]) -> dict[str, float]:
    """Return the values to count for a request with *features* and the *scores* of its answer; short lists have no score."""
    values: dict[str, float] = {
        "age_group": place_of_age(features.age_group),
        "avg_session_duration": features.avg_session_duration,
        "total_purchases": features.total_purchases,
        "engagement_score": features.engagement_score,
    }
    if len(scores) >= PLACE:
        values[SCORE] = scores[PLACE - 1]
    return values


def make_buckets(values: Iterable[float]) -> Buckets:
    """Return the distribution of *values*, of which there is at least one."""
    ordered = sorted(values)
    cuts = (ordered[len(ordered) * number // _BUCKETS] for number in range(1, _BUCKETS))
    bounds = sorted({round(cut, _DIGITS) for cut in cuts})
    counts = [0] * (len(bounds) + 1)
    for value in ordered:
        counts[bisect_left(bounds, value)] += 1
    return Buckets(bounds, [round(count / len(ordered), _DIGITS) for count in counts])
