import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from chassis.call import Call, Deadline, Reply
from chassis.environment import SettingsError
from chassis.hop.client import HopAnswer
from chassis.receipt import Receipt
from chassis.wire.headers import RawHeaders
from chassis.wire.problems import DeadlineExceededError, DependencyError, InvalidRequestError
from functions.recommend.handler import Recommend
from functions.recommend.hops import FeatureSource, Ranking
from functions.recommend.popular import PopularList
from functions.recommend.recommending import Recommender
from functions.recommend.settings import PopularSettings, Settings
from recsys.contracts.wire import RankedItem

T = TypeVar("T")

FEATURES = {"user_id": "ann", "features": {"age_group": "55+"}, "history": ["a", "b"], "as_of": None, "new": 1}
RANKED = {"items": [{"item_id": "c", "score": 0.5}], "model": {"name": "m", "version": "1"}}
POPULAR = [{"item_id": item_id, "score": 0.9} for item_id in "abcdef"]
DOWN = DependencyError("down")


class FakeHop:
    """A hop that answers what it is told to, the last answer for ever after, and remembers what it was sent."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.sent: list[dict[str, object]] = []
        self.budgets: list[float] = []

    async def send(self, body: bytes, *, call: Call, within_s: float, decode: Callable[[bytes], T]) -> HopAnswer[T]:
        self.sent.append(json.loads(body))
        self.budgets.append(within_s)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        value = decode(json.dumps(answer).encode())
        return HopAnswer(value, 0.005, {"total": 0.004, "model": 0.003}, {"rev": "hop-1", "batch": "2"})


def make_call(body: object, headers: RawHeaders = (), *, seconds: float = 1.0) -> Call:
    deadline = Deadline.after(seconds)
    return Call(json.dumps(body).encode(), headers, "id", Receipt(deadline.at - seconds), deadline)


class Stand:
    """The handler over two fake hops, with a popular list unless told otherwise."""

    def __init__(
        self, features: object = FEATURES, ranking: object = RANKED, *more: object, popular: bool = True
    ) -> None:
        self.features, self.ranking = FakeHop(features), FakeHop(ranking, *more)
        listed = PopularList(Ranking(FakeHop({"items": POPULAR})), PopularSettings(None, 60))
        if popular:
            asyncio.run(listed.refresh())
        self.handler = Recommend(
            Recommender(features=FeatureSource(self.features), ranking=Ranking(self.ranking), popular=listed)
        )

    def reply(self, body: object, headers: RawHeaders = (), *, seconds: float = 1.0) -> tuple[Reply, Call]:
        call = make_call(body, headers, seconds=seconds)
        return asyncio.run(self._call(call)), call

    async def _call(self, call: Call) -> Reply:
        return await self.handler(call)

    def answer(self, body: object, headers: RawHeaders = ()) -> dict[str, object]:
        document = json.loads(self.reply(body, headers)[0].body)
        assert isinstance(document, dict)
        return document


def test_the_two_hops_in_turn():
    """Features and history go on to the ranker as they came, with what the caller asked for."""
    stand = Stand()
    assert stand.answer({"user_id": "ann", "top_k": 7, "exclude": ["x"]}) == {
        "user_id": "ann",
        "recommendations": [{"item_id": "c", "score": 0.5}],
    }
    assert stand.features.sent == [{"user_id": "ann"}]
    assert stand.ranking.sent == [
        {"features": {"age_group": "55+"}, "history": ["a", "b"], "top_k": 7, "exclude": ["x"]}
    ]


def test_features_may_not_use_up_the_budget():
    """Features get a share of what is left, ranking nearly all of the rest."""
    stand = Stand()
    stand.answer({"user_id": "ann"})
    assert stand.features.budgets[0] == pytest.approx(0.4, abs=0.02)
    assert stand.ranking.budgets[0] == pytest.approx(0.9, abs=0.03)


def test_the_receipt_accounts_for_everything():
    """The phases of both hops, the network and our own share add up to the total."""
    _, call = Stand().reply({"user_id": "ann"})
    assert {
        "features",
        "features-network",
        "ranking",
        "ranking-network",
        "model",
        "app",
    } <= call.receipt.durations.keys()
    assert call.receipt.facts["features-rev"] == call.receipt.facts["ranking-rev"] == "hop-1"
    assert call.receipt.facts["batch"] == "2"


def test_without_features_ranking_goes_on_with_none():
    """A features hop that fails makes everybody a stranger, and the answer says so."""
    stand = Stand(features=DOWN)
    assert stand.answer({"user_id": "ann"}) == {
        "user_id": "ann",
        "recommendations": [{"item_id": "c", "score": 0.5}],
        "degraded": ["features"],
        "degraded_reasons": {"features": "dependency-failed"},
    }
    assert stand.ranking.sent[0]["history"] == []


def test_without_ranking_the_popular_list_is_shown():
    """A ranking hop that fails leaves the popular list, without history and exclusions."""
    answer = Stand(ranking=DeadlineExceededError()).answer({"user_id": "ann", "top_k": 2, "exclude": ["c"]})
    assert answer == {
        "user_id": "ann",
        "recommendations": [{"item_id": "d", "score": 0.9}, {"item_id": "e", "score": 0.9}],
        "degraded": ["ranking"],
        "degraded_reasons": {"ranking": "deadline-exceeded"},
    }


def test_without_both_there_is_still_an_answer():
    """With neither hop the popular list is all there is, and both are named."""
    answer = Stand(features=DOWN, ranking=DOWN).answer({"user_id": "ann", "top_k": 1})
    assert answer["recommendations"] == [{"item_id": "a", "score": 0.9}]
    assert answer["degraded"] == ["features", "ranking"]


def test_without_anything_it_is_an_error():
    """No ranking and no list: the ranking's error."""
    with pytest.raises(DeadlineExceededError):
        Stand(ranking=DeadlineExceededError(), popular=False).reply({"user_id": "ann"})


@pytest.mark.parametrize("prefer", ["handling=strict", "respond-async, handling=strict", 'Handling="strict"; x=1'])
@pytest.mark.parametrize("failing", ["features", "ranking"])
def test_strict_callers_get_the_error(prefer, failing):
    """Who prefers strict handling gets the failure instead of a degraded answer."""
    stand = Stand(features=DOWN) if failing == "features" else Stand(ranking=DOWN)
    with pytest.raises(DependencyError):
        stand.reply({"user_id": "ann"}, [(b"prefer", prefer.encode())])


@pytest.mark.parametrize(
    ("lines", "strict"),
    [
        (["respond-async", "handling=strict"], True),
        (["wait=5, respond-async", "foo; bar=1, handling\t= strict"], True),
        (["handling=lenient", "handling=strict"], False),
        (["handling=strict", "handling=lenient"], True),
        (["foo; handling=strict"], False),
    ],
)
def test_preferences_may_come_in_several_lines(lines, strict):
    """Lines are read as one list; the first of equal preferences counts, and a parameter is none."""
    reply, _ = Stand().reply({"user_id": "ann"}, [(b"prefer", line.encode()) for line in lines])
    assert bool(reply.headers) is strict


def test_strict_is_confirmed():
    """A strict answer says that the preference was applied."""
    reply, _ = Stand().reply({"user_id": "ann"}, [(b"prefer", b"handling=strict")])
    assert reply.headers == ((b"preference-applied", b"handling=strict"),)
    assert Stand().reply({"user_id": "ann"}, [(b"prefer", b"handling=lenient")])[0].headers == ()


def test_the_batch_door_makes_one_round_trip_to_each_hop():
    """Several requests cost one call to each hop; a bad one gets its own problem document and disturbs nobody."""
    stand = Stand(
        features={"results": [FEATURES, {**FEATURES, "history": []}]},
        ranking={"results": [RANKED, {"error": {"status": 503}}]},
    )
    results = stand.answer({"requests": [{"user_id": "a"}, {"user_id": 1}, {"user_id": "b", "top_k": 1}]})["results"]
    assert isinstance(results, list)
    assert results[0] == {"user_id": "a", "recommendations": [{"item_id": "c", "score": 0.5}]}
    assert results[1]["error"]["errors"] == [{"path": "$.user_id", "detail": "must be a string, not a number"}]
    assert results[2] == {
        "user_id": "b",
        "recommendations": [{"item_id": "a", "score": 0.9}],
        "degraded": ["ranking"],
        "degraded_reasons": {"ranking": "dependency-failed"},
    }
    assert stand.features.sent == [{"user_ids": ["a", "b"]}]
    assert len(stand.ranking.sent) == 1


@pytest.mark.parametrize("strict", [False, True])
def test_what_cannot_be_ranked_of_a_batch_fails_alone(monkeypatch, strict):
    """Of requests that went in parts those of the failed part get the popular list, or where strict the error."""
    monkeypatch.setattr("functions.recommend.hops.MAX_REQUEST_BYTES", 100)
    stand = Stand({"results": [FEATURES, FEATURES]}, RANKED, DeadlineExceededError())
    prefer = [(b"prefer", b"handling=strict")] if strict else []
    results = stand.answer({"requests": [{"user_id": "a"}, {"user_id": "b", "top_k": 1}]}, prefer)["results"]
    assert isinstance(results, list)
    assert results[0] == {"user_id": "a", "recommendations": [{"item_id": "c", "score": 0.5}]}
    if strict:
        assert results[1]["error"]["code"] == "deadline-exceeded"
    else:
        assert results[1] == {
            "user_id": "b",
            "recommendations": [{"item_id": "c", "score": 0.9}],
            "degraded": ["ranking"],
            "degraded_reasons": {"ranking": "deadline-exceeded"},
        }


def test_a_strict_batch_has_no_degraded_item():
    """What rank_items refuses of a batch is an error to a strict caller, and the rest is answered."""
    stand = Stand(features={"results": [FEATURES, FEATURES]}, ranking={"results": [RANKED, {"error": {"status": 503}}]})
    body = {"requests": [{"user_id": "a"}, {"user_id": "b"}]}
    results = stand.answer(body, [(b"prefer", b"handling=strict")])["results"]
    assert isinstance(results, list)
    assert "degraded" not in results[0]
    assert results[1]["error"]["code"] == "dependency-failed"


def test_a_batch_of_bad_requests_costs_no_hop():
    """When nothing in a batch is valid nothing is asked."""
    stand = Stand()
    results = stand.answer({"requests": [{}, {"user_id": ""}]})["results"]
    assert isinstance(results, list)
    assert [each["error"]["status"] for each in results] == [422, 422]
    assert stand.features.sent == []


def test_a_batch_item_nobody_can_answer_fails_alone():
    """Without a popular list the item that ranking refused is an error among answers."""
    stand = Stand(
        features={"results": [FEATURES, FEATURES]},
        ranking={"results": [RANKED, {"error": {}}]},
        popular=False,
    )
    results = stand.answer({"requests": [{"user_id": "a"}, {"user_id": "b"}]})["results"]
    assert isinstance(results, list)
    assert "recommendations" in results[0]
    assert results[1]["error"]["status"] == 503


@pytest.mark.parametrize("body", [{}, {"user_id": "a", "other": 1}, {"requests": []}, {"requests": [{}] * 257}, []])
def test_bad_requests_are_refused_before_any_hop(body):
    """What is invalid costs no call."""
    stand = Stand()
    with pytest.raises(InvalidRequestError):
        stand.reply(body)
    assert stand.features.sent == []


async def test_the_popular_list_comes_in_pages_and_survives(tmp_path):
    """The list is asked for page by page without what it has, and the next process finds it again."""
    pages = [[{"item_id": f"{page}-{n}", "score": 0.5} for n in range(100)] for page in range(2)]
    hop = FakeHop({"items": pages[0]}, {"items": pages[1]}, {"items": []})
    path = tmp_path / "popular.json"
    await PopularList(Ranking(hop), PopularSettings(path, 60)).warm()
    assert [len(sent["exclude"]) for sent in hop.sent] == [0, 100, 200]  # type: ignore[arg-type]
    revived = PopularList(Ranking(FakeHop(DOWN)), PopularSettings(path, 60))
    await revived.warm()
    assert [item.item_id for item in revived.pick(["0-0"], 2)] == ["0-1", "0-2"]
    assert len(revived.pick((), 1000)) == 200


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'[{"item_id":1}]'])
async def test_a_damaged_list_is_no_list(tmp_path, content, caplog):
    """What cannot be read is logged and left out."""
    path = tmp_path / "popular.json"
    path.write_bytes(content)
    listed = PopularList(Ranking(FakeHop(DOWN)), PopularSettings(path, 60))
    await listed.warm()
    assert listed.pick((), 5) == []
    assert [record.message for record in caplog.records] == ["popular_list_unreadable"]


async def test_a_list_that_cannot_be_kept_is_still_used(caplog):
    """A file that cannot be written costs a warning, not the list."""
    listed = PopularList(Ranking(FakeHop({"items": POPULAR})), PopularSettings(Path("/nowhere/popular.json"), 60))
    await listed.warm()
    assert listed.pick((), 1) == [RankedItem("a", 0.9)]
    assert [record.message for record in caplog.records] == ["popular_list_not_kept"]


async def test_garbage_does_not_replace_the_list():
    """An answer that is no list leaves the one there is."""
    listed = PopularList(Ranking(FakeHop({"items": POPULAR}, {"items": 7})), PopularSettings(None, 60))
    await listed.refresh()
    with pytest.raises(DependencyError):
        await listed.refresh()
    assert len(listed.pick((), 10)) == 6


async def test_the_list_is_kept_fresh(monkeypatch):
    """Refreshing goes on after failures, also unexpected ones, and after successes, until it is cancelled."""
    monkeypatch.setattr("functions.recommend.popular._AFTER_FAILURE_S", 0.001)
    hop = FakeHop(DOWN, ValueError("unexpected"), {"items": POPULAR})
    listed = PopularList(Ranking(hop), PopularSettings(None, 0.001))
    async with listed.kept_fresh():
        while len(hop.sent) < 6:
            await asyncio.sleep(0.001)
    assert len(listed.pick((), 10)) == 6


def test_settings_name_both_hops():
    """URLs must be there and be URLs."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"AUTH": "off", "RANK_ITEMS_URL": "rank-items:80"})
    assert [fault.partition(" ")[0] for fault in caught.value.faults] == ["EXTRACT_FEATURES_URL", "RANK_ITEMS_URL"]
    with pytest.raises(SettingsError):
        Settings.from_env({"AUTH": "off", "RANK_ITEMS_URL": "http://a:port", "EXTRACT_FEATURES_URL": "http://a"})
    with pytest.raises(SettingsError, match="HOP_HEDGING must be 1 or 0"):
        Settings.from_env(
            {"AUTH": "off", "RANK_ITEMS_URL": "http://b", "EXTRACT_FEATURES_URL": "http://a", "HOP_HEDGING": "maybe"}
        )
