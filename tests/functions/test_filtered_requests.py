"""The fields `filter` and `diversity` of a request, from recommend's door to rank_items' batch."""

import asyncio
import json
from typing import Any

import pytest

from chassis.wire.problems import InvalidRequestError
from recrank.model import RankingModel
from tests.functions.harness import DOWN, FEATURES, POPULAR, RANKED, Harness, make_call, rank_request, ranking_by
from tests.ranking.test_filters import KINDS, with_kinds
from tools.bench.batching import make_artefact

BOOKS = [{"attribute": "category", "any_of": ["book"]}]
FILM_FAULT = {"path": "$.filter[0].any_of[0]", "detail": "no item has this category; some are: book"}
REFUSED = {"results": [{"error": {"status": 422, "code": "invalid-request", "errors": [FILM_FAULT]}}]}


def test_both_fields_reach_rank_items():
    """recommend passes the fields on as they are."""
    harness = Harness(ranking={"results": [RANKED]})
    harness.answer({"user_id": "ann", "filter": BOOKS, "diversity": 0.5})
    (sent,) = harness.ranking.sent
    (request,) = sent["requests"]
    assert (request["filter"], request["diversity"]) == (BOOKS, 0.5)


@pytest.mark.parametrize("extra", [{}, {"filter": []}, {"diversity": 0}])
def test_fields_that_are_off_are_not_sent(extra):
    """A request without a filter goes to rank_items as before, so an older rank_items takes it."""
    harness = Harness()
    harness.answer({"user_id": "ann", **extra})
    assert harness.ranking.sent == [
        {"features": FEATURES["features"], "history": ["a", "b"], "top_k": 5, "exclude": []}
    ]


@pytest.mark.parametrize("headers", [(), [(b"prefer", b"handling=strict")]])
def test_the_faults_of_a_filter_reach_the_caller(headers):
    """recommend does not know the attributes, so rank_items' faults become those of the caller's request."""
    harness = Harness(ranking=REFUSED)
    with pytest.raises(InvalidRequestError) as caught:
        harness.reply({"user_id": "ann", "filter": BOOKS}, headers)
    assert caught.value.problem()["errors"] == [FILM_FAULT]


def test_a_faulty_filter_in_a_batch_fails_alone():
    """Other requests of the batch get their answers."""
    harness = Harness({"results": [FEATURES, FEATURES]}, {"results": [REFUSED["results"][0], RANKED]})
    answer = harness.answer({"requests": [{"user_id": "ann", "filter": BOOKS}, {"user_id": "bob"}]})
    failed, answered = answer["results"]
    assert failed["error"]["status"] == 422
    assert answered["recommendations"] == RANKED["items"]


def test_without_ranking_a_filtered_request_gets_an_error():
    """The popular list is not filtered, so it replaces only the answers of requests without a filter."""
    harness = Harness({"results": [FEATURES, FEATURES]}, DOWN)
    answer = harness.answer({"requests": [{"user_id": "ann", "filter": BOOKS}, {"user_id": "bob"}]})
    failed, answered = answer["results"]
    assert "cannot be filtered" in failed["error"]["detail"]
    assert answered["recommendations"] == [item for item in POPULAR if str(item["item_id"]) not in "ab"][:5]


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("filter", [{"attribute": "category", "any_of": []}], "$.filter[0].any_of"),
        ("filter", BOOKS * 9, "$.filter"),
        ("diversity", 1.5, "$.diversity"),
    ],
)
def test_malformed_fields_are_refused(field, value, path):
    """The faults have their places, and the user's features are not read."""
    harness = Harness(ranking={"results": [RANKED]})
    with pytest.raises(InvalidRequestError) as caught:
        harness.reply({"user_id": "ann", field: value})
    assert [fault.path for fault in caught.value.faults] == [path]
    assert not harness.features.sent


async def rank(body: object) -> dict[str, Any]:
    """Return rank_items' answer to *body*."""
    model = RankingModel(with_kinds(make_artefact(items=500, dims=16)))
    with ranking_by(model, catalogue=lambda: model) as handler:
        reply = await handler(make_call(body))
    answer: dict[str, Any] = json.loads(reply.body)
    return answer


def test_rank_items_filters():
    """Every item of the answer meets the filter."""
    answer = asyncio.run(rank(rank_request(filter=BOOKS, top_k=20)))
    assert [KINDS[int(item["item_id"][5:]) % 100] for item in answer["items"]] == ["book"] * 20


def test_rank_items_lists_unknown_attributes_and_values():
    """All faults of a filter are reported together, in a batch for its own request only."""
    unknown = [{"attribute": "colour", "any_of": ["red"]}, {"attribute": "category", "any_of": ["flim"]}]
    with pytest.raises(InvalidRequestError) as caught:
        asyncio.run(rank(rank_request(filter=unknown)))
    assert [fault.path for fault in caught.value.faults] == ["$.filter[0].attribute", "$.filter[1].any_of[0]"]
    answer = asyncio.run(rank({"requests": [rank_request(filter=unknown), rank_request()]}))
    failed, answered = answer["results"]
    assert failed["error"]["status"] == 422
    assert len(answered["items"]) == 5


def test_rank_items_describes_the_item_that_a_list_resembles():
    """`include: ["item"]` adds the item of the request to the answer; a request without an item is refused."""
    answer = asyncio.run(rank(rank_request(item_id="item_3", include=["item"], top_k=2)))
    described = {"item_id": "item_3", "title": "", "attributes": {"category": [KINDS[3]]}, "available": True}
    assert (answer["item"], len(answer["items"])) == (described, 2)
    assert "item" not in asyncio.run(rank(rank_request(item_id="item_3")))
    with pytest.raises(InvalidRequestError) as caught:
        asyncio.run(rank(rank_request(include=["item"])))
    assert [fault.path for fault in caught.value.faults] == ["$.item_id"]
