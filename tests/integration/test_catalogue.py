"""Changes of items by event, through extract_features, to all instances of rank_items."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from chassis.wire.problems import InvalidRequestError
from functions.extract_features.item_changes import read_removal, read_upsert
from localkn.processes import free_port
from recsys.contracts import events
from recsys.declaration.types import Attribute
from recsys.features import UNKNOWN_FEATURES
from recsys.records import UserRecord
from tests.functions.test_events import event
from tests.integration.test_metrics import scrape
from tests.running import CLIENT, Running, running
from tests.trained import in_store
from tests.waiting import eventually

pytestmark = pytest.mark.may_block

FEATURES = {"age_group": "unknown", "avg_session_duration": 0, "total_purchases": 0, "engagement_score": 0}
HISTORY = ["item_0", "item_10", "item_20"]
DECLARED = {"kind": Attribute("categorical"), "price": Attribute("number"), "since": Attribute("time")}


def changed(**values: list[str]) -> dict[str, Any]:
    return {"item_id": "a", "attributes": [{"attribute": name, "values": each} for name, each in values.items()]}


@pytest.fixture
def store_url(empty_store_url: str) -> str:
    """Return the URL of a store."""

    ann = [UserRecord("ann", "25-34")]
    in_store(empty_store_url, lambda store: store.replace(ann, population=UNKNOWN_FEATURES), create=True)
    return empty_store_url


@pytest.fixture
def ports() -> list[int]:
    """Return the ports at which the instances of rank_items show their metrics."""
    return [free_port(), free_port()]


@pytest.fixture
def pipeline(store_url: str, ports: list[int], demo_state: Any) -> Iterator[tuple[Running, list[Running]]]:
    """Return an instance of extract_features and two of rank_items."""
    env = {"MODEL_PATH": str(demo_state.model_path), "CATALOGUE_URL": store_url}
    with contextlib.ExitStack() as started:
        features = started.enter_context(running("extract_features", {"FEATURE_STORE_URL": store_url}))
        rankers = [started.enter_context(running("rank_items", {**env, "METRICS_PORT": str(port)})) for port in ports]
        yield features, rankers


def send(features: Running, type_: str, data: dict[str, Any], id_: str = "1", **more: str) -> int:
    headers = {"ce-specversion": "1.0", "ce-id": id_, "ce-source": "/shop", "ce-type": type_, **more}
    return CLIENT.post(features.url, json=data, headers=headers).status_code


def rank(ranker: Running, **more: Any) -> bytes:
    body = {"features": FEATURES, "history": HISTORY, "top_k": 100, **more}
    answer = ranker.post(body)
    return answer.content if answer.status_code == 200 else str(answer.status_code).encode()


def ids(content: bytes) -> list[str]:
    return [item["item_id"] for item in json.loads(content)["items"]]


def test_every_instance_follows_the_catalogue(pipeline, ports, store_url, demo_state):
    """Changes show in all instances without a restart, with the same bytes, also in one that starts later."""
    features, rankers = pipeline
    before = rank(rankers[0])
    best, second = ids(before)[:2]
    unknown = {"filter": [{"attribute": "category", "any_of": ["?"]}], "features": FEATURES, "history": []}
    (fault,) = rankers[0].post(unknown).json()["errors"]
    category = fault["detail"].rpartition("some are: ")[2].split(", ")[0]
    film = {
        "item_id": "film-new",
        "title": "New",
        "attributes": [{"attribute": "category", "values": [category, "brand-new"]}],
    }
    assert send(features, events.ITEM_UPSERTED, film) == 202
    assert send(features, events.ITEM_UPSERTED, {"item_id": best, "available": False}, "2") == 202
    assert send(features, events.ITEM_REMOVED, {"item_id": second}, "3") == 202

    def agree(revision: int) -> bool:
        return [scrape(port)["recsys_catalogue_revision"][()] for port in ports] == [revision] * 2

    eventually(lambda: agree(3))
    filtered = {"filter": [{"attribute": "category", "any_of": ["brand-new"]}]}
    assert [ids(rank(ranker, **filtered)) for ranker in rankers] == [["film-new"]] * 2
    answers = [rank(ranker) for ranker in rankers]
    assert answers[0] == answers[1] != before
    assert not {best, second} & set(ids(answers[0]))
    with running("rank_items", {"MODEL_PATH": str(demo_state.model_path), "CATALOGUE_URL": store_url}) as late:
        eventually(lambda: rank(late) == answers[0])
    assert send(features, events.ITEM_UPSERTED, {"item_id": best, "available": True}, "4") == 202
    assert send(features, events.ITEM_REMOVED, {"item_id": "film-new"}, "5") == 202
    eventually(lambda: agree(5))
    answers = [rank(ranker) for ranker in rankers]
    assert answers[0] == answers[1]
    assert best in ids(answers[0])
    assert rank(rankers[0], **filtered) == b"422"


@pytest.mark.parametrize(
    ("type_", "data", "path"),
    [
        (events.ITEM_UPSERTED, {"item_id": "a"}, "$"),
        (events.ITEM_UPSERTED, {"item_id": "", "available": True}, "$.item_id"),
        (
            events.ITEM_UPSERTED,
            {"item_id": "a", "attributes": [{"attribute": "kind", "values": "tea"}]},
            "$.attributes[0].values",
        ),
        (events.ITEM_UPSERTED, {"item_id": "a", "available": "no"}, "$.available"),
        (events.ITEM_UPSERTED, {"item_id": "a", "available": True, "price": 3}, "$.price"),
        (events.ITEM_UPSERTED, changed(price=["cheap"]), "$.attributes[0].values"),
        (events.ITEM_UPSERTED, changed(kind=["tea"], price=["1", "2"]), "$.attributes[1].values"),
        (events.ITEM_UPSERTED, changed(price=["inf"]), "$.attributes[0].values"),
        (events.ITEM_UPSERTED, changed(since=["31/12/2026"]), "$.attributes[0].values"),
        (events.ITEM_REMOVED, {}, "$.item_id"),
    ],
)
def test_malformed_changes_are_refused(type_, data, path):
    """Faults are listed as for interactions, and no broker retries these events."""
    call = event(data, type_)
    with pytest.raises(InvalidRequestError) as caught:
        read_upsert(call, attributes=DECLARED) if type_ == events.ITEM_UPSERTED else read_removal(call)
    assert [fault.path for fault in caught.value.faults] == [path]


def test_numbers_and_times_get_the_form_of_a_training():
    """A filter and a training compare changed items with those of an items file."""
    told = event(changed(price=["1e1"], since=["2026-01-01T00:00:00Z"], kind=["1e1"]), events.ITEM_UPSERTED)
    item = read_upsert(told, attributes=DECLARED).item()
    assert item is not None
    assert item.attributes == {"price": ("10.0",), "since": ("1767225600.0",), "kind": ("1e1",)}
