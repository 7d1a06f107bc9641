import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.batching.queue import BatchLimits
from chassis.call import Call
from chassis.hop.client import HopAnswer
from chassis.wire.problems import DeadlineExceededError, DependencyError, ServingError
from functions.extract_features.settings import Settings as ExtractFeaturesSettings
from functions.rank_items.settings import Settings as RankItemsSettings
from functions.recommend import hops
from functions.recommend.hops import MAX_REQUEST_BYTES, PARTS_AT_ONCE, FeaturesClient, RankCall, RankingClient, cut
from recsys.contracts.wire import MAX_BATCH, MAX_EXCLUDE, MAX_HISTORY, MAX_ID_LENGTH
from tests.functions.harness import make_call

T = TypeVar("T")

LIMITS = BatchLimits(max_batch_size=64, max_wait_s=0.0, max_queue_size=100, slots=4)


class FakeHop:
    """A hop that answers single and batch requests, and records their bodies."""

    def __init__(self, one: dict[str, object]) -> None:
        self.bodies: list[dict[str, list[object]]] = []
        self._one = one

    async def send(self, body: bytes, *, call: Call, within_s: float, decode: Callable[[bytes], T]) -> HopAnswer[T]:
        asked = msgspec.json.decode(body)
        self.bodies.append(asked)
        many = asked.get("user_ids") or asked.get("requests")
        answer = {"results": [self._one] * len(many)} if many else self._one
        return HopAnswer(decode(msgspec.json.encode(answer)), 0.001, {}, {})


@pytest.mark.parametrize(("limits", "requests"), [(LIMITS, 1), (None, 3)])
async def test_simultaneous_feature_calls_share_a_request(limits, requests):
    """With limits, three simultaneous calls share a request; without limits, they are three requests."""
    hop = FakeHop({"features": {}, "history": []})
    source = FeaturesClient(hop, batch=limits)
    answers = await asyncio.gather(*(source.fetch([user], call=make_call(), within_s=60) for user in "abc"))
    assert len(hop.bodies) == requests
    assert [len(answer.value) for answer in answers] == [1, 1, 1]


@pytest.mark.parametrize(("limits", "requests"), [(LIMITS, 1), (None, 3)])
async def test_simultaneous_ranking_calls_share_a_request(limits, requests):
    """With limits, three simultaneous calls to rank_items share a request; without limits, they are three requests."""
    hop = FakeHop({"items": []})
    ranking = RankingClient(hop, batch=limits)
    one = RankCall(msgspec.Raw(b"{}"), msgspec.Raw(b"[]"), 5)
    answers = await asyncio.gather(*(ranking.rank([one], call=make_call(), within_s=60) for _ in "abc"))
    assert len(hop.bodies) == requests
    assert [len(answer.value) for answer in answers] == [1, 1, 1]
    assert ranking.waiting() == 0


class FakeRanking:
    """A fake rank_items that answers with each request's history once *release* is set, and fails for some bodies."""

    def __init__(self, *failing: str) -> None:
        self.sizes: list[int] = []
        self.counts: list[int] = []
        self.budgets: list[float] = []
        self.under_way = self.most_under_way = 0
        self.release = asyncio.Event()
        self.release.set()
        self._failing = failing

    async def send(self, body: bytes, *, call: Call, within_s: float, decode: Callable[[bytes], T]) -> HopAnswer[T]:
        asked = msgspec.json.decode(body)
        self.sizes.append(len(body))
        self.counts.append(len(asked.get("requests", [asked])))
        self.budgets.append(within_s)
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        try:
            await self.release.wait()
            await asyncio.sleep(0)
        finally:
            self.under_way -= 1
        if any(each.encode() in body for each in self._failing):
            raise DependencyError(f"part {len(self.sizes)} failed")
        results = [{"items": each["history"]} for each in asked.get("requests", [asked])]
        spent_s = float(len(self.sizes))
        answer = msgspec.json.encode({"results": results} if "requests" in asked else results[0])
        return HopAnswer(decode(answer), spent_s, {"total": spent_s}, {"rev": "r"})


def long_call(name: str, size: int = 1000) -> RankCall:
    return RankCall(msgspec.Raw(b"{}"), msgspec.Raw(msgspec.json.encode([name, "x" * size])), 5)


def first_items(answer: HopAnswer[list[hops.RankOutcome]]) -> list[str]:
    return [
        each.code if isinstance(each, ServingError) else msgspec.json.decode(each.items)[0] for each in answer.value
    ]


@pytest.fixture
def short_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit requests to 4,000 bytes, which is room for three calls."""
    monkeypatch.setattr(hops, "MAX_REQUEST_BYTES", 4000)


@pytest.mark.usefixtures("short_requests")
async def test_a_long_request_is_split():
    """The parts keep the order of the calls and the size limit, and the receipt is that of the slowest part."""
    hop = FakeRanking()
    names = [f"u{number}" for number in range(10)]
    answer = await RankingClient(hop).rank([long_call(name) for name in names], call=make_call(), within_s=60)
    assert first_items(answer) == names
    assert sorted(hop.counts) == [1, 3, 3, 3]
    assert max(hop.sizes) <= 4000
    assert answer.durations == {"total": 4.0}
    assert 0 < answer.spent_s < 60


@pytest.mark.usefixtures("short_requests")
async def test_parts_fail_independently():
    """When a part fails, only its calls fail; when every part fails, the whole call does."""
    calls = [long_call(f"u{number}") for number in range(7)]
    answer = await RankingClient(FakeRanking("u4")).rank(calls, call=make_call(), within_s=60)
    assert first_items(answer) == ["u0", "u1", "u2", *["dependency-failed"] * 3, "u6"]
    with pytest.raises(DependencyError):
        await RankingClient(FakeRanking("u")).rank(calls, call=make_call(), within_s=60)


@pytest.mark.usefixtures("short_requests")
async def test_parts_are_sent_with_limited_concurrency(turns):
    """Few parts are in flight at a time, each gets the time left, and cancelling the call cancels all parts."""
    hop = FakeRanking()
    hop.release.clear()
    ranking, calls = RankingClient(hop), [long_call("a", 3000)] * 20
    asked = asyncio.ensure_future(ranking.rank(calls, call=make_call(), within_s=60))
    await turns()
    assert hop.under_way == PARTS_AT_ONCE
    asked.cancel()
    await asyncio.wait([asked])
    assert hop.under_way == 0
    hop.release.set()
    assert len((await ranking.rank(calls, call=make_call(), within_s=60)).value) == 20
    assert hop.most_under_way == PARTS_AT_ONCE
    assert hop.budgets[PARTS_AT_ONCE:] == sorted(hop.budgets[PARTS_AT_ONCE:], reverse=True)


@pytest.mark.usefixtures("short_requests")
async def test_expired_parts_are_not_sent():
    """A part whose turn comes after the deadline is a spent deadline, not a failure of the hop."""
    hop = FakeRanking()
    for calls in ([long_call("a")], [long_call("a")] * 9):
        with pytest.raises(DeadlineExceededError):
            await RankingClient(hop).rank(calls, call=make_call(), within_s=0.0)
    assert hop.sizes == []


async def test_long_calls_do_not_delay_short_ones():
    """A call too long for a shared request is sent alone; the other calls of its turn still share one."""
    hop = FakeRanking()
    ranking = RankingClient(hop, batch=LIMITS)
    share = MAX_REQUEST_BYTES // LIMITS.max_batch_size
    calls = [long_call("a"), long_call("b", share), long_call("c"), long_call("d", 2 * MAX_REQUEST_BYTES)]
    answers = await asyncio.gather(*(ranking.rank([each], call=make_call(), within_s=60) for each in calls))
    assert [first_items(answer) for answer in answers] == [["a"], ["b"], ["c"], ["d"]]
    assert sorted(hop.counts) == [1, 1, 2]


async def test_a_full_group_fits_into_one_request():
    """Calls that may share a request fit into one request, even at their greatest length."""
    hop = FakeRanking()
    ranking = RankingClient(hop, batch=LIMITS)
    size = MAX_REQUEST_BYTES // LIMITS.max_batch_size - 80
    calls = [long_call("a", size) for _ in range(LIMITS.max_batch_size)]
    await asyncio.gather(*(ranking.rank([each], call=make_call(), within_s=60) for each in calls))
    assert hop.counts == [LIMITS.max_batch_size]
    assert 0.99 * MAX_REQUEST_BYTES < hop.sizes[0] <= MAX_REQUEST_BYTES


@given(sizes=st.lists(st.integers(1, 60), max_size=30), most=st.integers(20, 120))
def test_parts_are_few_and_within_the_limit(sizes, most):
    """Parts keep every query in order, respect the limit unless they hold one query, and cannot hold the next one."""

    def length(part: object) -> int:
        return len(msgspec.json.encode({"requests": part}))

    queries = [msgspec.json.encode("x" * (size - 1)) for size in sizes]
    parts = cut(queries, most_bytes=most)
    assert [query for part in parts for query in part] == queries
    whole = [[msgspec.json.decode(query) for query in part] for part in parts]
    assert all(length(part) <= most or len(part) == 1 for part in whole)
    assert all(length([*part, following[0]]) > most for part, following in pairwise(whole))


LONGEST_ID = "\U0001f600" * MAX_ID_LENGTH


async def longest_bodies() -> tuple[int, int]:
    """Return the bytes of the longest request to extract_features and of the longest single one to rank_items."""
    sizes: list[int] = []

    class Scales:
        async def send(self, body: bytes, *, call: Call, within_s: float, decode: Callable[[bytes], T]) -> HopAnswer[T]:
            sizes.append(len(body))
            raise DependencyError

    features = b'{"age_group":"%s","avg_session_duration":1.7976931348623157e308,' % ("\U0001f600" * 32).encode()
    features += b'"total_purchases":9007199254740992,"engagement_score":0.12345678901234567}'
    history = msgspec.json.encode([LONGEST_ID] * MAX_HISTORY)
    one = RankCall(msgspec.Raw(features), msgspec.Raw(history), 100, [LONGEST_ID] * MAX_EXCLUDE)
    with pytest.raises(DependencyError):
        await FeaturesClient(Scales()).fetch([LONGEST_ID] * MAX_BATCH, call=make_call(), within_s=60)
    with pytest.raises(DependencyError):
        await RankingClient(Scales()).rank([one], call=make_call(), within_s=60)
    return sizes[0], sizes[1]


async def test_the_longest_requests_fit_the_receivers_limits():
    """The longest requests fit the receivers' body limits, and the split ones fit with room to spare."""
    features_bytes, rank_bytes = await longest_bodies()
    extract_features = ExtractFeaturesSettings.from_env({"AUTH": "off", "FEATURE_STORE_URL": "memory:"}).serving
    rank_items = RankItemsSettings.from_env({"AUTH": "off", "MODEL_PATH": "model"}).serving
    assert 2 * features_bytes <= extract_features.max_body_bytes
    assert rank_bytes <= MAX_REQUEST_BYTES // 2
    assert rank_items.max_body_bytes >= MAX_REQUEST_BYTES * 2
