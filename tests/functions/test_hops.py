import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.batching.queue import BatchLimits
from chassis.call import Call, Deadline
from chassis.hop.client import HopAnswer
from chassis.receipt import Receipt
from chassis.wire.problems import DeadlineExceededError, DependencyError, ServingError
from functions.extract_features.settings import Settings as ExtractFeaturesSettings
from functions.rank_items.settings import Settings as RankItemsSettings
from functions.recommend import hops
from functions.recommend.hops import MAX_REQUEST_BYTES, PARTS_AT_ONCE, FeatureSource, RankCall, Ranking, cut
from recsys.contracts.wire import MAX_BATCH, MAX_EXCLUDE, MAX_HISTORY, MAX_ID_LENGTH

T = TypeVar("T")

LIMITS = BatchLimits(max_batch_size=64, max_wait_s=0.0, max_queue_size=100, slots=4)


class Door:
    """A hop that answers single and batch requests, and remembers the bodies."""

    def __init__(self, one: dict[str, object]) -> None:
        self.bodies: list[dict[str, list[object]]] = []
        self._one = one

    async def send(self, body: bytes, *, call: Call, within_s: float, decode: Callable[[bytes], T]) -> HopAnswer[T]:
        asked = msgspec.json.decode(body)
        self.bodies.append(asked)
        many = asked.get("user_ids") or asked.get("requests")
        answer = {"results": [self._one] * len(many)} if many else self._one
        return HopAnswer(decode(msgspec.json.encode(answer)), 0.001, {}, {})


def make_call() -> Call:
    return Call(b"", [], "id", Receipt(0.0), Deadline.after(5))


@pytest.mark.parametrize(("limits", "requests"), [(LIMITS, 1), (None, 3)])
async def test_features_asked_for_at_once_are_one_request(limits, requests):
    """Coalescing is what the limits say: with them three calls of a turn are one request, without them three."""
    door = Door({"features": {}, "history": []})
    source = FeatureSource(door, batch=limits)
    answers = await asyncio.gather(*(source.fetch([user], call=make_call(), within_s=1) for user in "abc"))
    assert len(door.bodies) == requests
    assert [len(answer.value) for answer in answers] == [1, 1, 1]


@pytest.mark.parametrize(("limits", "requests"), [(LIMITS, 1), (None, 3)])
async def test_rankings_asked_for_at_once_are_one_request(limits, requests):
    """The same for rank_items."""
    door = Door({"items": []})
    ranking = Ranking(door, batch=limits)
    one = RankCall(msgspec.Raw(b"{}"), msgspec.Raw(b"[]"), 5)
    answers = await asyncio.gather(*(ranking.rank([one], call=make_call(), within_s=1) for _ in "abc"))
    assert len(door.bodies) == requests
    assert [len(answer.value) for answer in answers] == [1, 1, 1]
    assert ranking.waiting() == 0


class RankDoor:
    """rank_items that answers each request with its own history as items, once *release* is set; some bodies fail."""

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


def told(answer: HopAnswer[list[hops.RankOutcome]]) -> list[str]:
    return [
        each.code if isinstance(each, ServingError) else msgspec.json.decode(each.items)[0] for each in answer.value
    ]


@pytest.fixture
def short_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three calls of some thousand bytes fit into a request."""
    monkeypatch.setattr(hops, "MAX_REQUEST_BYTES", 4000)


@pytest.mark.usefixtures("short_requests")
async def test_what_is_too_long_for_one_request_is_several():
    """Calls stay in order, no request is longer than the limit, and the receipt is that of the slowest."""
    door = RankDoor()
    names = [f"u{number}" for number in range(10)]
    answer = await Ranking(door).rank([long_call(name) for name in names], call=make_call(), within_s=1)
    assert told(answer) == names
    assert sorted(door.counts) == [1, 3, 3, 3]
    assert max(door.sizes) <= 4000
    assert answer.durations == {"total": 4.0}
    assert 0 < answer.spent_s < 1


@pytest.mark.usefixtures("short_requests")
async def test_parts_fail_on_their_own():
    """A request that fails is the error of the calls in it and of no others; where all fail the error is raised."""
    calls = [long_call(f"u{number}") for number in range(7)]
    answer = await Ranking(RankDoor("u4")).rank(calls, call=make_call(), within_s=1)
    assert told(answer) == ["u0", "u1", "u2", *["dependency-failed"] * 3, "u6"]
    with pytest.raises(DependencyError):
        await Ranking(RankDoor("u")).rank(calls, call=make_call(), within_s=1)


@pytest.mark.usefixtures("short_requests")
async def test_parts_are_sent_some_at_a_time(turns):
    """Few are under way at once, each has what is left of the time, and a caller who leaves ends them all."""
    door = RankDoor()
    door.release.clear()
    ranking, calls = Ranking(door), [long_call("a", 3000)] * 20
    asked = asyncio.ensure_future(ranking.rank(calls, call=make_call(), within_s=1))
    await turns()
    assert door.under_way == PARTS_AT_ONCE
    asked.cancel()
    await asyncio.wait([asked])
    assert door.under_way == 0
    door.release.set()
    assert len((await ranking.rank(calls, call=make_call(), within_s=1)).value) == 20
    assert door.most_under_way == PARTS_AT_ONCE
    assert door.budgets[PARTS_AT_ONCE:] == sorted(door.budgets[PARTS_AT_ONCE:], reverse=True)


@pytest.mark.usefixtures("short_requests")
async def test_without_time_nothing_is_sent():
    """Parts whose turn comes too late are a spent deadline, not a failure of the hop."""
    door = RankDoor()
    for calls in ([long_call("a")], [long_call("a")] * 9):
        with pytest.raises(DeadlineExceededError):
            await Ranking(door).rank(calls, call=make_call(), within_s=0.0)
    assert door.sizes == []


async def test_long_calls_do_not_hold_up_short_ones():
    """A call that leaves too little room in a shared request goes alone; the others of its turn still share one."""
    door = RankDoor()
    ranking = Ranking(door, batch=LIMITS)
    share = MAX_REQUEST_BYTES // LIMITS.max_batch_size
    calls = [long_call("a"), long_call("b", share), long_call("c"), long_call("d", 2 * MAX_REQUEST_BYTES)]
    answers = await asyncio.gather(*(ranking.rank([each], call=make_call(), within_s=1) for each in calls))
    assert [told(answer) for answer in answers] == [["a"], ["b"], ["c"], ["d"]]
    assert sorted(door.counts) == [1, 1, 2]


async def test_as_many_as_may_share_a_request_fit_into_one():
    """However long calls are that share a request, it is one."""
    door = RankDoor()
    ranking = Ranking(door, batch=LIMITS)
    size = MAX_REQUEST_BYTES // LIMITS.max_batch_size - 80
    calls = [long_call("a", size) for _ in range(LIMITS.max_batch_size)]
    await asyncio.gather(*(ranking.rank([each], call=make_call(), within_s=1) for each in calls))
    assert door.counts == [LIMITS.max_batch_size]
    assert 0.99 * MAX_REQUEST_BYTES < door.sizes[0] <= MAX_REQUEST_BYTES


@given(sizes=st.lists(st.integers(1, 60), max_size=30), most=st.integers(20, 120))
def test_parts_are_few_and_short_enough(sizes, most):
    """Nothing is lost or moved; a part is within the limit or one query; no part could have taken the next query too."""

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
        await FeatureSource(Scales()).fetch([LONGEST_ID] * MAX_BATCH, call=make_call(), within_s=1)
    with pytest.raises(DependencyError):
        await Ranking(Scales()).rank([one], call=make_call(), within_s=1)
    return sizes[0], sizes[1]


async def test_what_recommend_sends_is_taken():
    """The longest requests fit the receivers' limits, those that are cut with room to spare."""
    features_bytes, rank_bytes = await longest_bodies()
    extract_features = ExtractFeaturesSettings.from_env({"AUTH": "off", "FEATURE_STORE_URL": "memory:"}).serving
    rank_items = RankItemsSettings.from_env({"AUTH": "off", "MODEL_PATH": "model"}).serving
    assert 2 * features_bytes <= extract_features.max_body_bytes
    assert rank_bytes <= MAX_REQUEST_BYTES // 2
    assert rank_items.max_body_bytes >= MAX_REQUEST_BYTES * 2
