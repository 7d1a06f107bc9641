"""The times of a request: that of the user's newest interaction, and that to recommend for."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from chassis.batching.batcher import Batcher
from chassis.batching.queue import BatchLimits
from chassis.call import Call
from chassis.wire.problems import InvalidRequestError
from functions.rank_items.handler import RankItems
from recrank.filters import ItemAttributes
from recrank.model import Query, Ranking
from recsys.contracts.wire import Model
from tests.functions.harness import FEATURES, Harness, make_call

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
def test_rank_items_reads_times_to_the_microsecond(text, time_us):
    """Both times become microseconds since the epoch."""
    query = _ask({"as_of": text, "at": text})
    assert (query.as_of_us, query.at_us) == (time_us, time_us)


@pytest.mark.parametrize("value", ["1998-03-08T10:00:00", "yesterday", 889_351_200, "1998-03-08"])
def test_other_times_are_faults(value):
    """A time without a time zone, another text and a number are refused at their place."""
    with pytest.raises(InvalidRequestError) as caught:
        _ask({"at": value})
    assert [fault.path for fault in caught.value.faults] == ["$.at"]


def _ask(times: dict[str, object]) -> Query:
    """Return what the batcher of rank_items gets for a request with *times*."""
    asked: list[Query] = []

    def rank(queries: Sequence[Query]) -> list[Ranking]:
        asked.extend(queries)
        return [Ranking([], [])] * len(queries)

    features = {"age_group": "18-24", "avg_session_duration": 0, "total_purchases": 0, "engagement_score": 0}
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(rank, limits=BatchLimits(4, 0.0, 4), executor=executor)
        handler = RankItems(batcher, model=Model("m", "1"), attributes=lambda: ItemAttributes([]))
        asyncio.run(_call(handler, make_call({"features": features, "history": [], **times})))
    return asked[0]


async def _call(handler: RankItems, call: Call) -> None:
    await handler(call)
