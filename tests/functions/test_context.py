"""User attributes and the context of a request, from recommend's door to the query of rank_items."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from chassis.wire.problems import InvalidRequestError
from recrank.model import Query, Ranking
from recsys.contracts import events
from recsys.declaration.context import find_faults
from recsys.declaration.reader import DEFAULT, DeclarationError, default_declaration, parse_declaration
from tests.functions.harness import FEATURES, RANKED, Harness, make_call, rank_request, ranking_by
from tests.functions.test_doors import refused

pytestmark = pytest.mark.may_block

TEXT = DEFAULT.read_text("utf-8") + '[context]\ndevice = { kind = "categorical" }\nhour = { kind = "number" }\n'
DECLARATION = parse_declaration(TEXT, "shop.toml")
CONTEXT: dict[str, str | float] = {"device": "phone", "hour": 14.5}
ATTRIBUTES = {"city": ["Bern"], "sizes": ["M", "L"]}
FAULTY = {"device": 7, "hour": "noon", "page": "home"}
FAULTS = [
    ("$.context.device", "must be a string, not a number"),
    ("$.context.hour", "must be a number, not a string"),
    ("$.context.page", "must be a declared context; declared are: device, hour"),
]


def test_recommend_passes_attributes_and_context_on():
    """rank_items gets both as they are; requests without them have the fields of before."""
    features = {**FEATURES, "attributes": ATTRIBUTES}
    harness = Harness({"results": [features, FEATURES]}, {"results": [RANKED, RANKED]})
    harness.answer({"requests": [{"user_id": "ann", "context": CONTEXT}, {"user_id": "bob", "context": {}}]})
    ann, bob = harness.ranking.sent[0]["requests"]
    assert (ann["user_attributes"], ann["context"]) == (ATTRIBUTES, CONTEXT)
    assert list(bob) == ["features", "history", "top_k", "exclude"]


def test_the_faults_of_a_context_reach_the_caller():
    """In a batch, other requests get their answers."""
    fault = {"path": FAULTS[0][0], "detail": FAULTS[0][1]}
    problem = {"error": {"status": 422, "code": "invalid-request", "errors": [fault]}}
    with pytest.raises(InvalidRequestError) as caught:
        Harness(ranking={"results": [problem]}).reply({"user_id": "ann", "context": {"device": 7}})
    assert caught.value.problem()["errors"] == [fault]
    harness = Harness({"results": [FEATURES, FEATURES]}, {"results": [problem, RANKED]})
    requests = [{"user_id": "ann", "context": {"device": 7}}, {"user_id": "bob"}]
    failed, answered = harness.answer({"requests": requests})["results"]
    assert failed["error"]["errors"] == [fault]
    assert answered["recommendations"] == RANKED["items"]


def test_values_of_other_types_are_refused_at_the_door():
    """A value is a string or a number; no hop is called for the others."""
    context = {"device": ["phone"], "hour": True, "page": None, "": 1, "long": "x" * 129}
    assert refused({"user_id": "ann", "context": context}) == [
        ("$.context.device", "must be a string or a number, not an array"),
        ("$.context.hour", "must be a string or a number, not a boolean"),
        ("$.context.page", "must be a string or a number, not null"),
        ("$.context.", "must not be empty"),
        ("$.context.long", "must have at most 128 characters, not 129"),
    ]
    many = {str(number): number for number in range(33)}
    assert refused({"user_id": "ann", "context": many}) == [("$.context", "must have at most 32 members")]
    assert refused({"user_id": "ann", "context": "phone"}) == [("$.context", "must be an object, not a string")]


async def query_of(body: object, headers: Sequence[tuple[bytes, bytes]] = (), **options: Any) -> tuple[Query, bytes]:
    """Return the query that rank_items makes of a request, and its answer."""
    queries: list[Query] = []

    def rank(batch: Sequence[Query]) -> list[Ranking]:
        queries.extend(batch)
        return [Ranking(["a"], [1.0]) for _ in batch]

    with ranking_by(rank, **options) as handler:
        reply = await handler(make_call(body, headers, seconds=30))
    return queries[0], reply.body


async def test_the_ranker_gets_attributes_and_context():
    """Requests without them get empty ones, and the same answer."""
    request = rank_request(user_attributes=ATTRIBUTES, context=CONTEXT)
    query, answer = await query_of(request, context=DECLARATION.context)
    assert (query.user_attributes, query.context) == (ATTRIBUTES, CONTEXT)
    query, plain = await query_of(rank_request())
    assert (query.user_attributes, query.context) == ({}, {})
    assert plain == answer


async def test_a_sequence_brings_the_attributes():
    """`features.extracted.v1` has them from extract_features."""
    headers = [(b"ce-specversion", b"1.0"), (b"ce-id", b"1"), (b"ce-source", b"/s"),
               (b"ce-type", events.EXTRACTED.encode())]  # fmt: skip
    data = {**rank_request(user_attributes=ATTRIBUTES), "user_id": "ann"}
    query, _ = await query_of(data, headers)
    assert query.user_attributes == ATTRIBUTES


def test_rank_items_checks_the_context_by_the_declaration():
    """All faults are listed with their places, and a pipeline without a declared context takes none."""
    with pytest.raises(InvalidRequestError) as caught:
        asyncio.run(query_of(rank_request(context=FAULTY), context=DECLARATION.context))
    assert [(fault.path, fault.detail) for fault in caught.value.faults] == FAULTS
    with pytest.raises(InvalidRequestError) as caught:
        asyncio.run(query_of(rank_request(context=CONTEXT)))
    assert [fault.detail for fault in caught.value.faults] == ["must be a declared context; declared are: none"] * 2
    assert not list(find_faults(CONTEXT, DECLARATION.context or {}, "$"))


def test_declarations_of_before_keep_their_digests():
    """A declaration without a context is encoded as by earlier versions, so that artefacts keep serving."""
    assert set(json.loads(default_declaration().encode())) == {"events", "items", "rules", "training", "users"}
    assert set(json.loads(DECLARATION.encode())) > {"context"}
    difference = default_declaration().describe_difference(DECLARATION, mine="the model", theirs="RECSYS_DECLARATION")
    assert difference == 'context.device is absent in the model and {"kind":"categorical"} in RECSYS_DECLARATION'


def test_kinds_of_contexts_are_checked():
    """The fault has its line."""
    with pytest.raises(
        DeclarationError, match=r"shop.toml:\d+: context.hour.kind must be one of 'categorical', 'number'"
    ):
        parse_declaration(TEXT.replace('"number"', '"time"'), "shop.toml")
