"""The ids of answers in events: drawn for answers that are explored or reported, and for no others."""

import json

from functions.recommend import outbox, recommender
from functions.recommend.handler import Recommend
from functions.recommend.outbox import Outbox
from functions.recommend.settings import SinkSettings
from recsys.contracts.wire import Exploration
from tests.functions.harness import FEATURES, RANKED, FakeHop, make_call, make_recommender
from tests.functions.test_exposures import Sink


async def test_the_id_that_seeds_a_draw_is_the_id_of_its_event():
    """An answer that is drawn at random and reported has one id: rank_items, the event and the caller get the same."""
    ranking, sink = FakeHop(RANKED), Sink()
    box = Outbox(SinkSettings("http://sink.test", {}), source="/r", transport=sink)
    async with box.sending():
        reply = await Recommend(make_recommender(FakeHop(FEATURES), ranking, exploration=Exploration()), outbox=box)(
            make_call({"user_id": "ann"})
        )
    seed = ranking.sent[0]["exposure_id"]
    assert json.loads(sink.events[0].data)["exposure_id"] == seed == dict(reply.headers)[b"recsys-exposure"].decode()


def test_later_ids_are_greater(monkeypatch):
    """The ids of two milliseconds are in the order of their times; those of one millisecond differ."""
    monkeypatch.setattr("time.time_ns", lambda: 1_799_999_999_999_999_999)
    earlier = {recommender.draw_exposure_id() for _ in range(100)}
    monkeypatch.setattr("time.time_ns", lambda: 1_800_000_000_000_000_000)
    assert len(earlier) == 100
    assert max(earlier) < recommender.draw_exposure_id()


async def test_an_answer_that_needs_no_id_draws_none(monkeypatch):
    """Without exploration and without a sink, a request costs no random bytes."""

    def refuse() -> str:
        raise AssertionError("an id was drawn")

    monkeypatch.setattr(recommender, "draw_exposure_id", refuse)
    monkeypatch.setattr(outbox, "draw_exposure_id", refuse)
    ranking = FakeHop(RANKED)
    reply = await Recommend(make_recommender(FakeHop(FEATURES), ranking))(make_call({"user_id": "ann"}))
    assert (reply.status, "exposure_id" in ranking.sent[0]) == (200, False)
