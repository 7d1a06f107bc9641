"""The page of a user: what the pipeline knows, what it recommends, and what one item more would change."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from kndashboard.requests import PipelineCaller, item_ids
from kndashboard.snapshots import Snapshot
from tests.kndashboard.seen import revision, service, snapshot, status

pytestmark = pytest.mark.anyio

FEATURES = {"age_group": "18-24", "avg_session_duration": 60.0, "total_purchases": 3, "engagement_score": 0.5}
KNOWN = {"user_id": "u", "features": FEATURES, "history": ["b", "c"], "as_of": "2026-11-01T00:00:00Z"}
LIST = {"user_id": "u", "recommendations": [{"item_id": "a", "score": 1.0}]}
RANKED = {"items": [{"item_id": "d", "score": 0.5}], "model": {"name": "ials", "version": "1"}}


def platform(*names: str) -> Snapshot:
    """Return a platform whose Services have different addresses."""
    services = {name: service(revision(f"{name}-00001", "ready")) for name in names}
    for name, each in services.items():
        each["address"] = f"http://{name}.test"
    return snapshot(0, status(**services))


class FakeFunctions:
    """The functions, by host; each answers with its body, and an absent one refuses the connection."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.url.host, json.loads(request.content)))
        if request.url.host not in self.answers:
            raise httpx.ConnectError("refused")
        answer = self.answers[request.url.host]
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)


ALL = {"extract-features.test": KNOWN, "127.0.0.1": LIST, "rank-items.test": RANKED}


async def look_up(functions: FakeFunctions, *, added: str = "", now: Snapshot | None = None) -> dict[str, Any]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(functions)) as client:
        found = now or platform("extract-features", "rank-items", "recommend")
        return await PipelineCaller(client).look_up(found, "u", added=added)


async def test_a_user_is_shown_with_recommendations():
    """
    Features and history with times come from extract_features, the list with reasons from the public URL, and
    rank_items is not asked.
    """
    functions = FakeFunctions(ALL)
    found = await look_up(functions)
    assert (found["known"]["body"], found["recommended"]["body"]) == (KNOWN, LIST)
    assert "changed" not in found
    assert dict(functions.asked) == {
        "extract-features.test": {"user_id": "u", "include": ["times"]},
        "127.0.0.1": {"user_id": "u", "top_k": 10, "include": ["title", "reason"]},
    }


@pytest.mark.parametrize(("added", "history"), [("x", ["x", "b", "c"]), ("c", ["c", "b"])])
async def test_one_item_more_is_ranked_without_being_stored(added: str, history: list[str]):
    """rank_items gets the user's features with the item as the newest of the history, once."""
    functions = FakeFunctions(ALL)
    found = await look_up(functions, added=added)
    assert found["changed"]["body"] == RANKED
    asked = {"features": FEATURES, "history": history, "top_k": 10, "include": ["title", "reason"]}
    assert functions.asked[-1] == ("rank-items.test", asked)


async def test_a_refusal_of_the_features_is_passed_on():
    """If extract_features refuses the id, its problem document is the answer, and nothing is ranked."""
    refused = httpx.Response(422, json={"title": "The request is not valid"})
    found = await look_up(FakeFunctions({**ALL, "extract-features.test": refused}), added="x")
    assert found["known"]["status"] == 422
    assert "changed" not in found
    absent = await look_up(FakeFunctions({}), added="x")
    assert absent == {"known": {"error": "no answer: refused"}, "recommended": {"error": "no answer: refused"}}


async def test_a_pipeline_in_one_service_says_why_it_shows_no_users():
    """The page of a user needs the two functions behind recommend."""
    assert "rank-items" in (await look_up(FakeFunctions(ALL), now=platform("recommend")))["problem"]


async def test_an_item_is_shown_with_what_resembles_it():
    """An instance of rank_items describes the item; a pipeline in one Service says why it does not."""
    functions = FakeFunctions(ALL)
    async with httpx.AsyncClient(transport=httpx.MockTransport(functions)) as client:
        found = await PipelineCaller(client).look_at(platform("rank-items"), "d")
        failed = await PipelineCaller(client).look_at(platform("recommend"), "d")
    assert found["body"] == RANKED
    ((host, asked),) = functions.asked
    assert (host, asked["item_id"], asked["include"]) == ("rank-items.test", "d", ["title", "item"])
    assert "no Service rank-items" in failed["problem"]


def test_ids_are_found_in_every_kind_of_answer():
    """The ids come from histories, recommendations and ranked items; other answers have none."""
    bodies: list[Any] = [KNOWN, LIST, RANKED, {"items": [{"item_id": []}, 3]}, {"history": None}, "text", None]
    assert [list(item_ids({"body": body})) for body in bodies] == [["b", "c"], ["a"], ["d"], [], [], [], []]
    assert list(item_ids({"error": "no answer"})) == []
