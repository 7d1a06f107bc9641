import asyncio
import json
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest

from chassis.call import Call, Deadline, Reply
from chassis.environment import SettingsError
from chassis.hop.client import HopAnswer
from chassis.receipt import Receipt
from chassis.wire.headers import RawHeaders
from chassis.wire.problems import DeadlineExceededError, DependencyError, InvalidRequestError
from functions.recommend.handler import Recommend
from functions.recommend.hops import FeaturesClient, RankingClient
from functions.recommend.popular import PopularList
from functions.recommend.recommender import Recommender
from functions.recommend.settings import PopularSettings, Settings
from recsys.contracts.wire import RankedItem
from tests.virtual_time import on_virtual_time
from tests.waiting import until

T = TypeVar("T")

FEATURES = {"user_id": "ann", "features": {"age_group": "55+"}, "history": ["a", "b"], "as_of": None, "new": 1}
RANKED = {"items": [{"item_id": "c", "score": 0.5}], "model": {"name": "m", "version": "1"}}
POPULAR = [{"item_id": item_id, "score": 0.9} for item_id in "abcdef"]
DOWN = DependencyError("down")


class FakeHop:
    """A hop that returns the given answers in order and repeats the last, and records the requests."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.sent: list[dict[str, Any]] = []
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


class Harness:
    """The handler over two fake hops, with a popular list unless *popular* is false."""

    def __init__(
        self, features: object = FEATURES, ranking: object = RANKED, *more: object, popular: bool = True
    ) -> None:
        self.features, self.ranking = FakeHop(features), FakeHop(ranking, *more)
        listed = PopularList(RankingClient(FakeHop({"items": POPULAR})), PopularSettings(None, 60))
        if popular:
            asyncio.run(listed.refresh())
        self.handler = Recommend(
            Recommender(features=FeaturesClient(self.features), ranking=RankingClient(self.ranking), popular=listed)
        )

    def reply(self, body: object, headers: RawHeaders = (), *, seconds: float = 1.0) -> tuple[Reply, Call]:
        call = make_call(body, headers, seconds=seconds)
        return asyncio.run(self._call(call)), call

    async def _call(self, call: Call) -> Reply:
        return await self.handler(call)

    def answer(self, body: object, headers: RawHeaders = ()) -> dict[str, Any]:
        document = json.loads(self.reply(body, headers)[0].body)
        assert isinstance(document, dict)
        return document


def test_the_hops_are_called_in_sequence():
    """The ranker receives features and history unchanged, together with the caller's own parameters."""
    harness = Harness()
    assert harness.answer({"user_id": "ann", "top_k": 7, "exclude": ["x"]}) == {
        "user_id": "ann",
        "recommendations": [{"item_id": "c", "score": 0.5}],
    }
    assert harness.features.sent == [{"user_id": "ann"}]
    assert harness.ranking.sent == [
        {"features": {"age_group": "55+"}, "history": ["a", "b"], "top_k": 7, "exclude": ["x"]}
    ]


def test_features_get_a_share_of_the_budget():
    """The features hop gets a share of the time left, and the ranking hop nearly all of the rest."""
    harness = Harness()
    harness.answer({"user_id": "ann"})
    assert harness.features.budgets[0] == pytest.approx(0.4, abs=0.02)
    assert harness.ranking.budgets[0] == pytest.approx(0.9, abs=0.03)


def test_the_receipt_accounts_for_the_whole_time():
    """The receipt lists the phases of both hops, the network time and the function's own time."""
    _, call = Harness().reply({"user_id": "ann"})
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


def test_a_failed_features_hop_degrades_the_answer():
    """Without features, the ranker treats the user as unknown, and the answer says that it is degraded."""
    harness = Harness(features=DOWN)
    assert harness.answer({"user_id": "ann"}) == {
        "user_id": "ann",
        "recommendations": [{"item_id": "c", "score": 0.5}],
        "degraded": ["features"],
        "degraded_reasons": {"features": "dependency-failed"},
    }
    assert harness.ranking.sent[0]["history"] == []


def test_a_failed_ranking_hop_falls_back_to_the_popular_list():
    """Without a ranking, the answer is the popular list without the excluded items."""
    answer = Harness(ranking=DeadlineExceededError()).answer({"user_id": "ann", "top_k": 2, "exclude": ["c"]})
    assert answer == {
        "user_id": "ann",
        "recommendations": [{"item_id": "d", "score": 0.9}, {"item_id": "e", "score": 0.9}],
        "degraded": ["ranking"],
        "degraded_reasons": {"ranking": "deadline-exceeded"},
    }


def test_an_answer_remains_when_both_hops_fail():
    """Without both hops, the answer is the popular list and names both as degraded."""
    answer = Harness(features=DOWN, ranking=DOWN).answer({"user_id": "ann", "top_k": 1})
    assert answer["recommendations"] == [{"item_id": "a", "score": 0.9}]
    assert answer["degraded"] == ["features", "ranking"]


def test_a_failure_without_a_popular_list_is_an_error():
    """Without a popular list, the answer is the ranking hop's error."""
    with pytest.raises(DeadlineExceededError):
        Harness(ranking=DeadlineExceededError(), popular=False).reply({"user_id": "ann"})


@pytest.mark.parametrize("prefer", ["handling=strict", "respond-async, handling=strict", 'Handling="strict"; x=1'])
@pytest.mark.parametrize("failing", ["features", "ranking"])
def test_strict_callers_get_an_error(prefer, failing):
    """A caller that prefers strict handling gets the error instead of a degraded answer."""
    harness = Harness(features=DOWN) if failing == "features" else Harness(ranking=DOWN)
    with pytest.raises(DependencyError):
        harness.reply({"user_id": "ann"}, [(b"prefer", prefer.encode())])


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
def test_preferences_may_span_several_header_lines(lines, strict):
    """The lines are read as one list; the first of equal preferences counts, and a parameter is not a preference."""
    reply, _ = Harness().reply({"user_id": "ann"}, [(b"prefer", line.encode()) for line in lines])
    assert bool(reply.headers) is strict


def test_strict_handling_is_confirmed():
    """The answer to a strict request says that the preference was applied."""
    reply, _ = Harness().reply({"user_id": "ann"}, [(b"prefer", b"handling=strict")])
    assert reply.headers == ((b"preference-applied", b"handling=strict"),)
    assert Harness().reply({"user_id": "ann"}, [(b"prefer", b"handling=lenient")])[0].headers == ()


def test_a_batch_makes_one_call_to_each_hop():
    """A batch costs one call to each hop, and an invalid request in it fails with its own problem document."""
    harness = Harness(
        features={"results": [FEATURES, {**FEATURES, "history": []}]},
        ranking={"results": [RANKED, {"error": {"status": 503}}]},
    )
    results = harness.answer({"requests": [{"user_id": "a"}, {"user_id": 1}, {"user_id": "b", "top_k": 1}]})["results"]
    assert isinstance(results, list)
    assert results[0] == {"user_id": "a", "recommendations": [{"item_id": "c", "score": 0.5}]}
    assert results[1]["error"]["errors"] == [{"path": "$.user_id", "detail": "must be a string, not a number"}]
    assert results[2] == {
        "user_id": "b",
        "recommendations": [{"item_id": "a", "score": 0.9}],
        "degraded": ["ranking"],
        "degraded_reasons": {"ranking": "dependency-failed"},
    }
    assert harness.features.sent == [{"user_ids": ["a", "b"]}]
    assert len(harness.ranking.sent) == 1


@pytest.mark.parametrize("strict", [False, True])
def test_a_failed_part_of_a_batch_fails_alone(monkeypatch, strict):
    """The requests of a failed part get the popular list, or the error if the caller is strict."""
    monkeypatch.setattr("functions.recommend.hops.MAX_REQUEST_BYTES", 100)
    harness = Harness({"results": [FEATURES, FEATURES]}, RANKED, DeadlineExceededError())
    prefer = [(b"prefer", b"handling=strict")] if strict else []
    results = harness.answer({"requests": [{"user_id": "a"}, {"user_id": "b", "top_k": 1}]}, prefer)["results"]
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


def test_a_strict_batch_has_no_degraded_items():
    """A strict caller gets an error for each item that rank_items refuses, and answers for the rest."""
    harness = Harness(
        features={"results": [FEATURES, FEATURES]}, ranking={"results": [RANKED, {"error": {"status": 503}}]}
    )
    body = {"requests": [{"user_id": "a"}, {"user_id": "b"}]}
    results = harness.answer(body, [(b"prefer", b"handling=strict")])["results"]
    assert isinstance(results, list)
    assert "degraded" not in results[0]
    assert results[1]["error"]["code"] == "dependency-failed"


def test_a_batch_without_valid_requests_calls_no_hop():
    """A batch in which every request is invalid calls no hop."""
    harness = Harness()
    results = harness.answer({"requests": [{}, {"user_id": ""}]})["results"]
    assert isinstance(results, list)
    assert [each["error"]["status"] for each in results] == [422, 422]
    assert harness.features.sent == []


def test_an_unanswerable_item_of_a_batch_fails_alone():
    """Without a popular list, an item that rank_items refuses is an error among the answers."""
    harness = Harness(
        features={"results": [FEATURES, FEATURES]},
        ranking={"results": [RANKED, {"error": {}}]},
        popular=False,
    )
    results = harness.answer({"requests": [{"user_id": "a"}, {"user_id": "b"}]})["results"]
    assert isinstance(results, list)
    assert "recommendations" in results[0]
    assert results[1]["error"]["status"] == 503


@pytest.mark.parametrize("body", [{}, {"user_id": "a", "other": 1}, {"requests": []}, {"requests": [{}] * 257}, []])
def test_invalid_requests_are_refused_before_any_hop(body):
    """An invalid request calls no hop."""
    harness = Harness()
    with pytest.raises(InvalidRequestError):
        harness.reply(body)
    assert harness.features.sent == []


async def test_the_popular_list_is_fetched_in_pages_and_saved(tmp_path):
    """Each page excludes the items already fetched, and the next process reads the saved list."""
    pages = [[{"item_id": f"{page}-{n}", "score": 0.5} for n in range(100)] for page in range(2)]
    hop = FakeHop({"items": pages[0]}, {"items": pages[1]}, {"items": []})
    path = tmp_path / "popular.json"
    await PopularList(RankingClient(hop), PopularSettings(path, 60)).warm()
    assert [len(sent["exclude"]) for sent in hop.sent] == [0, 100, 200]
    revived = PopularList(RankingClient(FakeHop(DOWN)), PopularSettings(path, 60))
    await revived.warm()
    assert [item.item_id for item in revived.pick(["0-0"], 2)] == ["0-1", "0-2"]
    assert len(revived.pick((), 1000)) == 200


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'[{"item_id":1}]'])
async def test_a_damaged_list_is_ignored(tmp_path, content, caplog):
    """A list that cannot be read is logged and ignored."""
    path = tmp_path / "popular.json"
    path.write_bytes(content)
    listed = PopularList(RankingClient(FakeHop(DOWN)), PopularSettings(path, 60))
    await listed.warm()
    assert listed.pick((), 5) == []
    assert [record.message for record in caplog.records] == ["popular_list_unreadable"]


async def test_a_list_that_cannot_be_saved_is_still_used(caplog):
    """A file that cannot be written causes a warning, and the list is still used."""
    listed = PopularList(RankingClient(FakeHop({"items": POPULAR})), PopularSettings(Path("/nowhere/popular.json"), 60))
    await listed.warm()
    assert listed.pick((), 1) == [RankedItem("a", 0.9)]
    assert [record.message for record in caplog.records] == ["popular_list_not_kept"]


async def test_an_invalid_answer_does_not_replace_the_list():
    """An answer that is not a list of items leaves the current list unchanged."""
    listed = PopularList(RankingClient(FakeHop({"items": POPULAR}, {"items": 7})), PopularSettings(None, 60))
    await listed.refresh()
    with pytest.raises(DependencyError):
        await listed.refresh()
    assert len(listed.pick((), 10)) == 6


async def test_the_list_is_refreshed_periodically(monkeypatch):
    """Refreshing continues after successes and after failures, also unexpected ones, until it is cancelled."""
    monkeypatch.setattr("functions.recommend.popular._AFTER_FAILURE_S", 0.001)
    hop = FakeHop(DOWN, ValueError("unexpected"), {"items": POPULAR})
    listed = PopularList(RankingClient(hop), PopularSettings(None, 0.001))

    def has_fetched(times: int) -> bool:
        listed.note_request()
        return len(hop.sent) >= times

    async with listed.kept_fresh():
        await until(partial(has_fetched, 6))
    assert len(listed.pick((), 10)) == 6


@on_virtual_time
@pytest.mark.parametrize("in_use", [True, False])
async def test_the_list_is_refreshed_only_together_with_a_request(clock, in_use):
    """A refresh accompanies a request, and never follows later: rank_items could not scale to zero otherwise."""
    hop = FakeHop({"items": POPULAR})
    listed = PopularList(RankingClient(hop), PopularSettings(None, 30.0))
    ranking = RankingClient(FakeHop(RANKED))
    handler = Recommend(Recommender(features=FeaturesClient(FakeHop(FEATURES)), ranking=ranking, popular=listed))
    async with listed.kept_fresh():
        await handler(make_call({"user_id": "ann"}))
        await clock.advance(31)
        sent = [len(hop.sent)]
        for _ in range(20):
            if in_use:
                await handler(make_call({"user_id": "ann"}))
            await clock.advance(0.001)
            sent.append(len(hop.sent))
            await clock.advance(31)
            assert len(hop.sent) == sent[-1]
    assert [after - before for before, after in pairwise(sent)] == [in_use] * 20


@pytest.mark.parametrize(
    ("given", "completed"),
    [
        ("http://rank-items", "http://rank-items.shop.svc"),
        ("http://rank-items:8080/v1", "http://rank-items.shop.svc:8080/v1"),
        ("http://rank-items.other.svc.cluster.local", "http://rank-items.other.svc.cluster.local"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ],
)
def test_a_bare_name_of_a_hop_gets_the_namespace_of_the_pod(tmp_path, given, completed):
    """The same manifests work in any namespace; an address with a dot stays as it is."""
    file = tmp_path / "namespace"
    file.write_text("shop")
    env = {"AUTH": "off", "EXTRACT_FEATURES_URL": "http://a", "RANK_ITEMS_URL": given}
    assert Settings.from_env({**env, "NAMESPACE_FILE": str(file)}).rank_items_url == completed
    assert Settings.from_env(env).rank_items_url == given


def test_a_namespace_file_that_cannot_be_read_is_a_fault(tmp_path):
    """The fault names the variable."""
    env = {"AUTH": "off", "EXTRACT_FEATURES_URL": "http://a", "RANK_ITEMS_URL": "http://b"}
    with pytest.raises(SettingsError, match="NAMESPACE_FILE cannot be read: .*No such file"):
        Settings.from_env({**env, "NAMESPACE_FILE": str(tmp_path / "none")})


def test_settings_require_both_hop_urls():
    """The URLs of both hops must be set and valid."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"AUTH": "off", "RANK_ITEMS_URL": "rank-items:80"})
    assert [fault.partition(" ")[0] for fault in caught.value.faults] == ["EXTRACT_FEATURES_URL", "RANK_ITEMS_URL"]
    with pytest.raises(SettingsError):
        Settings.from_env({"AUTH": "off", "RANK_ITEMS_URL": "http://a:port", "EXTRACT_FEATURES_URL": "http://a"})
    with pytest.raises(SettingsError, match="HOP_HEDGING must be 1 or 0"):
        Settings.from_env(
            {"AUTH": "off", "RANK_ITEMS_URL": "http://b", "EXTRACT_FEATURES_URL": "http://a", "HOP_HEDGING": "maybe"}
        )


class SilentHop:
    """A hop that is being started and does not answer yet."""

    async def send(self, body: bytes, *, call: Call, within_s: float, decode: Callable[[bytes], T]) -> HopAnswer[T]:
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_recommend_that_wakes_others_is_ready_before_it_knows_the_list():
    """Its start does not wait for rank_items, which starts at the same time."""
    async with PopularList(RankingClient(SilentHop()), PopularSettings(None, 60)).kept_fresh(waits=False) as ready:
        assert ready is None


def test_settings_refuse_an_address_that_cannot_be_woken():
    """Every address in WAKE_URLS is checked when the function starts."""
    urls = {"AUTH": "off", "RANK_ITEMS_URL": "http://b", "EXTRACT_FEATURES_URL": "http://a"}
    assert Settings.from_env(urls | {"WAKE_URLS": "http://a http://b"}).wake_urls == ("http://a", "http://b")
    with pytest.raises(SettingsError, match="WAKE_URLS must hold http"):
        Settings.from_env(urls | {"WAKE_URLS": "http://a rank-items:80"})
