import json
from contextlib import nullcontext

import pytest

from chassis.call import Call, Deadline
from chassis.environment import SettingsError
from chassis.receipt import Receipt
from chassis.wire.problems import DependencyError, InvalidRequestError
from functions.extract_features.handler import ExtractFeatures
from functions.extract_features.settings import Settings
from recsys.contracts.wire import Features
from recsys.features import AGE_GROUPS, NOBODY, compute_features, group_age, population_defaults
from recsys.stores.memory import MemoryStore
from recsys.stores.port import HistoryItem, StoreUnavailableError, UserRecord

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


def call(body: object) -> Call:
    return Call(json.dumps(body).encode(), [], "id", Receipt(0.0), Deadline.after(1))


@pytest.fixture
async def handler() -> ExtractFeatures:
    store = MemoryStore()
    await store.replace([ANN, UserRecord("new", "55+")], population=POPULATION)
    return ExtractFeatures(store, population=POPULATION, history_limit=10)


async def test_a_known_user(handler):
    """Features come from the counters, history newest first, and the moment of the newest interaction."""
    reply = await handler(call({"user_id": "ann"}))
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


async def test_an_unknown_user_is_no_error(handler):
    """Nobody knows them: population defaults, no history, and a word that this is a cold start."""
    assert json.loads((await handler(call({"user_id": "who"}))).body) == {
        "user_id": "who",
        "features": json.loads(
            '{"age_group":"unknown","avg_session_duration":60.0,"total_purchases":1,"engagement_score":0.5}'
        ),
        "history": [],
        "as_of": None,
        "cold_start": True,
    }


async def test_a_user_who_did_nothing_yet(handler):
    """A profile without interactions is known, with zero counters."""
    answer = json.loads((await handler(call({"user_id": "new"}))).body)
    assert answer["features"]["age_group"] == "55+"
    assert answer["features"]["engagement_score"] == 0.0
    assert answer["as_of"] is None
    assert "cold_start" not in answer


async def test_several_users_at_once(handler):
    """The batch door answers in the order asked, each as alone."""
    results = json.loads((await handler(call({"user_ids": ["who", "ann", "who"]}))).body)["results"]
    singles = [json.loads((await handler(call({"user_id": each}))).body) for each in ("who", "ann", "who")]
    assert results == singles


async def test_the_history_is_cut():
    """No more items go on than the limit says."""
    store = MemoryStore()
    await store.replace([ANN], population=NOBODY)
    limited = ExtractFeatures(store, population=NOBODY, history_limit=1)
    assert json.loads((await limited(call({"user_id": "ann"}))).body)["history"] == ["b"]


@pytest.mark.parametrize(
    "body",
    [{}, {"user_id": ""}, {"user_ids": []}, {"user_ids": ["a", 1]}, {"user_ids": ["a"] * 257}, {"user_ids": "a"}],
)
async def test_bad_requests_are_refused(handler, body):
    """What is not a user id, or a list of 1 to 256 of them, is a fault of the request."""
    with pytest.raises(InvalidRequestError):
        await handler(call(body))


async def test_a_store_that_fails_is_a_failed_dependency():
    """A store that does not answer makes a retryable error without the store's own text."""

    class Broken(MemoryStore):
        async def read(self, user_ids, *, history):
            raise StoreUnavailableError("/secret/path is locked")

    with pytest.raises(DependencyError) as caught:
        await ExtractFeatures(Broken(), population=NOBODY, history_limit=1)(call({"user_id": "a"}))
    assert "secret" not in str(caught.value.problem())


def test_settings_list_every_fault():
    """All faults of the environment come at once."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(
            {"AUTH": "off", "HISTORY_LIMIT": "0", "PORT": "99999", "REQUEST_TIMEOUT_S": "20", "KEEP_ALIVE_S": "5"}
        )
    assert len(caught.value.faults) == 5


@pytest.mark.parametrize(("window_s", "taken"), [("315360000", True), ("315360001", False), ("1e13", False)])
def test_events_are_known_for_ten_years_at_most(window_s, taken):
    """A window that a store's clock cannot be set back by is refused at the start, not at the first event."""
    with nullcontext() if taken else pytest.raises(SettingsError, match="EVENT_DEDUPLICATION_S"):
        Settings.from_env({"AUTH": "off", "FEATURE_STORE_URL": "memory:", "EVENT_DEDUPLICATION_S": window_s})


def test_features_without_sessions():
    """A user whose data has no sessions has no session length, and counts as having had one."""
    features = compute_features(UserRecord("a", "unknown", views=10))
    assert (features.avg_session_duration, features.engagement_score) == (0.0, 0.5)


def test_population_defaults_are_averages():
    """Unknown users get the mean, and the median of purchases; without anybody, zeros."""
    known = [
        Features(age_group="55+", avg_session_duration=seconds, total_purchases=bought, engagement_score=score)
        for seconds, bought, score in ((10.0, 0, 0.1), (20.0, 1, 0.2), (60.0, 50, 0.6))
    ]
    assert population_defaults(known) == Features(
        age_group="unknown", avg_session_duration=30.0, total_purchases=1, engagement_score=0.3
    )
    assert population_defaults([]) == NOBODY


def test_ages_fall_into_the_groups():
    """Every age has exactly one of the named groups."""
    groups = [group_age(years) for years in range(120)]
    assert sorted(set(groups), key=groups.index) == list(AGE_GROUPS[:-1])
    assert (group_age(17), group_age(18), group_age(54), group_age(55)) == ("under-18", "18-24", "45-54", "55+")
