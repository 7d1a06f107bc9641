import json
from contextlib import nullcontext

import pytest

from chassis.environment import SettingsError
from chassis.wire.problems import DependencyError, InvalidRequestError
from functions.extract_features.handler import ExtractFeatures
from functions.extract_features.settings import Settings
from recstore.memory import MemoryStore
from recstore.port import StoreUnavailableError
from recsys.contracts.wire import Features
from recsys.features import AGE_GROUPS, UNKNOWN_FEATURES, compute_features, group_age, population_defaults
from recsys.records import HistoryItem, UserRecord
from tests.functions.harness import make_call

POPULATION = Features(age_group="unknown", avg_session_duration=60.0, total_purchases=1, engagement_score=0.5)
ANN = UserRecord(
    "ann",
    "25-34",
    views=6,
    clicks=2,
    purchases=2,
    sessions=4,
    session_ms=90_000,
    as_of_us=1_767_225_600_250_000,
    history=[HistoryItem("b", 1.0, 2), HistoryItem("a", 1.0, 1)],
)


@pytest.fixture
async def handler() -> ExtractFeatures:
    store = MemoryStore()
    await store.replace([ANN, UserRecord("new", "55+")], population=POPULATION)
    return ExtractFeatures(store, population=POPULATION, history_limit=10)


async def test_a_known_user_gets_computed_features(handler):
    """The answer holds computed features, the history newest first, and the time of the newest interaction."""
    reply = await handler(make_call({"user_id": "ann"}))
    assert json.loads(reply.body) == {
        "user_id": "ann",
        "features": {
            "age_group": "25-34",
            "avg_session_duration": 22.5,
            "total_purchases": 2,
            "engagement_score": 0.333333,
        },
        "history": ["b", "a"],
        "as_of": "2026-01-01T00:00:00.250000Z",
    }


async def test_an_unknown_user_gets_population_defaults(handler):
    """An unknown user gets the population defaults, an empty history and the cold-start flag."""
    assert json.loads((await handler(make_call({"user_id": "who"}))).body) == {
        "user_id": "who",
        "features": json.loads(
            '{"age_group":"unknown","avg_session_duration":60.0,"total_purchases":1,"engagement_score":0.5}'
        ),
        "history": [],
        "as_of": None,
        "cold_start": True,
    }


async def test_a_user_without_interactions_is_known(handler):
    """A user with a profile and no interactions has zero counters and no cold-start flag."""
    answer = json.loads((await handler(make_call({"user_id": "new"}))).body)
    assert answer["features"]["age_group"] == "55+"
    assert answer["features"]["engagement_score"] == 0.0
    assert answer["as_of"] is None
    assert "cold_start" not in answer


async def test_an_answer_includes_the_times_of_the_history_if_the_request_does(handler):
    """Each item of the history has the time of its newest interaction; an unknown user has none."""
    plain = json.loads((await handler(make_call({"user_id": "ann"}))).body)
    timed = json.loads((await handler(make_call({"user_id": "ann", "include": ["times"]}))).body)
    assert timed == {**plain, "times": ["1970-01-01T00:00:00.000002Z", "1970-01-01T00:00:00.000001Z"]}
    assert "times" not in json.loads((await handler(make_call({"user_id": "who", "include": ["times"]}))).body)


async def test_times_are_those_of_the_shown_history_and_may_be_unknown():
    """The limit of the history counts for the times; an imported row without a time has none."""
    store = MemoryStore()
    untimed = [HistoryItem("b", 1.0, 0), HistoryItem("a", 1.0, 0)]
    await store.replace([UserRecord("ann", "55+", history=untimed)], population=UNKNOWN_FEATURES)
    limited = ExtractFeatures(store, population=UNKNOWN_FEATURES, history_limit=1)
    answer = json.loads((await limited(make_call({"user_id": "ann", "include": ["times"]}))).body)
    assert (answer["history"], answer["times"]) == (["b"], [None])


async def test_a_batch_equals_single_requests(handler):
    """A batch is answered in the order of its users, each as in a single request."""
    results = json.loads((await handler(make_call({"user_ids": ["who", "ann", "who"]}))).body)["results"]
    singles = [json.loads((await handler(make_call({"user_id": each}))).body) for each in ("who", "ann", "who")]
    assert results == singles


async def test_the_history_is_limited():
    """The history holds no more items than the limit."""
    store = MemoryStore()
    await store.replace([ANN], population=UNKNOWN_FEATURES)
    limited = ExtractFeatures(store, population=UNKNOWN_FEATURES, history_limit=1)
    assert json.loads((await limited(make_call({"user_id": "ann"}))).body)["history"] == ["b"]


@pytest.mark.parametrize(
    "body",
    [{}, {"user_id": ""}, {"user_ids": []}, {"user_ids": ["a", 1]}, {"user_ids": ["a"] * 257}, {"user_ids": "a"}],
)
async def test_invalid_requests_are_refused(handler, body):
    """A request must hold one user id or a list of 1 to 256 user ids."""
    with pytest.raises(InvalidRequestError):
        await handler(make_call(body))


async def test_a_failing_store_is_a_failed_dependency():
    """A store failure is a retryable error that does not repeat the store's own text."""

    class Broken(MemoryStore):
        async def read(self, user_ids, *, history):
            raise StoreUnavailableError("/secret/path is locked")

    with pytest.raises(DependencyError) as caught:
        await ExtractFeatures(Broken(), population=UNKNOWN_FEATURES, history_limit=1)(make_call({"user_id": "a"}))
    assert "secret" not in str(caught.value.problem())


def test_settings_list_every_fault():
    """The settings report all faults of the environment together."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(
            {"AUTH": "off", "HISTORY_LIMIT": "0", "PORT": "99999", "REQUEST_TIMEOUT_S": "20", "KEEP_ALIVE_S": "5"}
        )
    assert len(caught.value.faults) == 5


@pytest.mark.parametrize(("window_s", "taken"), [("315360000", True), ("315360001", False), ("1e13", False)])
def test_the_deduplication_window_is_ten_years_at_most(window_s, taken):
    """A window longer than a store's clock can be set back is refused at startup, not at the first event."""
    with nullcontext() if taken else pytest.raises(SettingsError, match="EVENT_DEDUPLICATION_S"):
        Settings.from_env({"AUTH": "off", "FEATURE_STORE_URL": "memory:", "EVENT_DEDUPLICATION_S": window_s})


def test_a_user_without_sessions_has_no_session_length():
    """A user without sessions has a session length of 0, and the engagement score assumes one session."""
    features = compute_features(UserRecord("a", "unknown", views=10))
    assert (features.avg_session_duration, features.engagement_score) == (0.0, 0.5)


def test_population_defaults_are_averages():
    """Unknown users get the mean of each feature and the median of purchases; an empty population gives zeros."""
    known = [
        Features(age_group="55+", avg_session_duration=seconds, total_purchases=bought, engagement_score=score)
        for seconds, bought, score in ((10.0, 0, 0.1), (20.0, 1, 0.2), (60.0, 50, 0.6))
    ]
    assert population_defaults(known) == Features(
        age_group="unknown", avg_session_duration=30.0, total_purchases=1, engagement_score=0.3
    )
    assert population_defaults([]) == UNKNOWN_FEATURES


def test_every_age_belongs_to_one_group():
    """Each age maps to one of the named age groups."""
    groups = [group_age(years) for years in range(120)]
    assert sorted(set(groups), key=groups.index) == list(AGE_GROUPS[:-1])
    assert (group_age(17), group_age(18), group_age(54), group_age(55)) == ("under-18", "18-24", "45-54", "55+")
