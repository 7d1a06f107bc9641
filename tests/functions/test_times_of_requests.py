"""The times of a request: that of the user's newest interaction, and that to recommend for."""

from collections.abc import Sequence

import pytest

from chassis.wire.problems import InvalidRequestError
from recrank.model import Query, Ranking
from tests.functions.harness import FEATURES, Harness, make_call, rank_request, ranking_by

AS_OF = "1998-03-08T10:00:00Z"


def test_both_times_reach_rank_items():
    """recommend passes on the time that extract_features gave, and that of the caller."""
    harness = Harness(features=FEATURES | {"as_of": AS_OF})
    harness.answer({"user_id": "ann", "at": "1998-03-09T10:00:00+01:00"})
    (sent,) = harness.ranking.sent
    assert (sent["as_of"], sent["at"]) == (AS_OF, "1998-03-09T10:00:00+01:00")


def test_times_that_are_unknown_are_not_sent():
    """A user without interactions has no newest one, and without a time the request is for the present."""
    harness = Harness(features=FEATURES | {"as_of": None})
    harness.answer({"user_id": "ann"})
    (sent,) = harness.ranking.sent
    assert sent.keys().isdisjoint({"as_of", "at"})


@pytest.mark.parametrize(
    ("text", "time_us"), [(AS_OF, 889_351_200_000_000), ("1970-01-01T00:00:00.000001Z", 1), (None, None)]
)
async def test_rank_items_reads_times_to_the_microsecond(text, time_us):
    """Both times become microseconds since the epoch."""
    query = await _ask({"as_of": text, "at": text})
    assert (query.as_of_us, query.at_us) == (time_us, time_us)


@pytest.mark.parametrize("value", ["1998-03-08T10:00:00", "yesterday", 889_351_200, "1998-03-08"])
async def test_other_times_are_faults(value):
    """A time without a time zone, another text and a number are refused at their place."""
    with pytest.raises(InvalidRequestError) as caught:
        await _ask({"at": value})
    assert [fault.path for fault in caught.value.faults] == ["$.at"]


async def _ask(times: dict[str, object]) -> Query:
    """Return what the batcher of rank_items gets for a request with *times*."""
    asked: list[Query] = []

    def rank(queries: Sequence[Query]) -> list[Ranking]:
        asked.extend(queries)
        return [Ranking([], [])] * len(queries)

    with ranking_by(rank) as handler:
        await handler(make_call(rank_request(**times)))
    return asked[0]
