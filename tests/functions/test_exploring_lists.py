"""Exploration on its way: the setting of recommend, the request to rank_items, and the propensities in the event."""

import json

import pytest
from msgspec import Raw

from chassis.environment import SettingsError
from functions.recommend.handler import Recommend
from functions.recommend.outbox import make_served
from functions.recommend.recommender import RecommendAnswer, Recommended
from functions.recommend.served import Noted, describe
from functions.recommend.settings import Settings
from recsys.contracts import wire
from recsys.contracts.wire import Exploration
from tests.functions.harness import FEATURES, RANKED, FakeHop, make_call, make_recommender, rank_request

DEFAULT = Exploration()
ADDRESSES = {"AUTH": "off", "EXTRACT_FEATURES_URL": "http://f", "RANK_ITEMS_URL": "http://r"}


def test_the_setting_turns_exploration_on():
    """Exploration is off by default; its setting names a share and a temperature, both with defaults."""
    assert Settings.from_env(ADDRESSES).exploration is None
    assert Settings.from_env({**ADDRESSES, "EXPLORATION": "{}"}).exploration == Exploration(0.1, 0.5)
    found = Settings.from_env({**ADDRESSES, "EXPLORATION": '{"share": 0.3, "temperature": 2}'}).exploration
    assert found == Exploration(0.3, 2)


@pytest.mark.parametrize("text", ['{"share": 0}', '{"share": 1.1}', '{"temperature": 0}', '{"epsilon": 1}', "0.1", "x"])
def test_a_faulty_setting_is_refused(text):
    """A share of no list, a misspelt name and text that is not JSON are named as faults."""
    with pytest.raises(SettingsError, match="EXPLORATION cannot be read"):
        Settings.from_env({**ADDRESSES, "EXPLORATION": text})


async def ask(body: object, exploration: Exploration | None = DEFAULT) -> list[dict[str, object]]:
    """Return the requests that rank_items gets."""
    hop = FakeHop(RANKED if "requests" not in str(body) else {"results": [RANKED, RANKED]})
    features = FakeHop(FEATURES if "requests" not in str(body) else {"results": [FEATURES, FEATURES]})
    await Recommend(make_recommender(features, hop, exploration=exploration))(make_call(body))
    (sent,) = hop.sent
    return list(sent["requests"]) if "requests" in sent else [sent]


async def test_each_list_of_a_user_has_an_id_of_its_own():
    """The requests of a batch have different ids, so that their draws are independent."""
    (sent,) = await ask({"user_id": "zoe"})
    assert sent["exploration"] == {"share": 0.1, "temperature": 0.5}
    assert wire.rank_request.decode(json.dumps(sent | rank_request()).encode()).exposure_id
    batch = await ask({"requests": [{"user_id": "zoe"}, {"user_id": "ann"}]})
    assert len({str(each["exposure_id"]) for each in batch}) == 2


async def test_lists_that_no_event_describes_do_not_explore():
    """Without a user id, or without the setting, the list is the usual list, because no event would describe it."""
    (anonymous,) = await ask({"history": [{"item_id": "a"}]})
    (plain,) = await ask({"user_id": "zoe"}, None)
    assert not {"exploration", "exposure_id"} & ({*anonymous} | {*plain})


def test_the_event_holds_the_propensities():
    """Each item of the event has the propensity that rank_items answered with."""
    answer = RecommendAnswer("zoe", Raw(b'[{"item_id":"a","score":0.9},{"item_id":"b","score":0.5}]'))
    noted = Noted(Recommended(answer, Raw(b"null"), Raw(b"[0.975,0.0025]")), "x1", "r", time_us=0, took_s=0)
    event = make_served(noted, describe(noted), source="/s", extensions={})
    assert [item["propensity"] for item in json.loads(event.data)["items"]] == [0.975, 0.0025]
