"""A request gets all of its faults in one answer: those of its types, and those that only a declaration shows."""

import asyncio

import pytest

from chassis.wire.problems import InvalidRequestError
from functions.extract_features.exposures import read_group
from functions.extract_features.ingest import read_interaction
from functions.extract_features.item_changes import read_upsert
from functions.extract_features.user_updates import read_update
from recsys.contracts import events, wire
from recsys.declaration.reader import DeclarationError, default_declaration, parse_declaration
from tests.functions.harness import DOWN, FEATURES, RANKED, Harness, rank_request
from tests.functions.test_events import event
from tests.functions.test_filtered_requests import BOOKS, FILM_FAULT, REFUSED, rank
from tests.functions.test_user_updates import SHOP


def paths(caught: pytest.ExceptionInfo[InvalidRequestError]) -> list[str]:
    return [fault.path for fault in caught.value.faults]


def test_rank_items_lists_undeclared_attributes_beside_wrong_types():
    """Alone and in a batch."""
    faulty = rank_request(top_k="5", filter=[{"attribute": "colour", "any_of": ["red"]}], context={"page": "home"})
    with pytest.raises(InvalidRequestError) as caught:
        asyncio.run(rank(faulty))
    assert paths(caught) == ["$.top_k", "$.filter[0].attribute", "$.context.page"]
    (failed,) = asyncio.run(rank({"requests": [faulty]}))["results"]
    assert [each["path"] for each in failed["error"]["errors"]] == paths(caught)


def test_recommend_asks_rank_items_about_the_sound_parts_of_a_refused_request():
    """The caller gets the faults of both; only the checked fields are sent, and the user's features are not read."""
    harness = Harness(ranking=REFUSED)
    with pytest.raises(InvalidRequestError) as caught:
        harness.reply({"user_id": 7, "top_k": 500, "filter": BOOKS, "history": [{"item_id": "a", "time": "noon"}]})
    assert paths(caught) == ["$.user_id", "$.top_k", "$.history[0].time", FILM_FAULT["path"]]
    assert not harness.features.sent
    ((request,),) = [sent["requests"] for sent in harness.ranking.sent]
    assert (request["filter"], request["history"], request["top_k"]) == (BOOKS, [], 1)
    wire.rank_request.decode(wire.encode(request))


def test_a_refused_request_without_a_checked_field_costs_no_call():
    """Most refusals need rank_items for nothing."""
    harness = Harness()
    with pytest.raises(InvalidRequestError) as caught:
        harness.reply({"user_id": "ann", "diversity": 2})
    assert paths(caught) == ["$.diversity"]
    assert not harness.ranking.sent


def test_without_rank_items_a_refusal_names_the_faults_that_are_known():
    """A refused request is not answered with the failure of a function that it would not need."""
    with pytest.raises(InvalidRequestError) as caught:
        Harness(ranking=DOWN).reply({"user_id": 7, "filter": BOOKS})
    assert paths(caught) == ["$.user_id"]


def test_each_request_of_a_batch_gets_its_own_faults():
    """The refused requests of a batch are sent to rank_items together, and the others are answered as usual."""
    film = REFUSED["results"][0]
    harness = Harness(FEATURES, {"results": [film, RANKED]}, RANKED)
    answer = harness.answer(
        {"requests": [{"user_id": 1, "filter": BOOKS}, {"user_id": "ann"}, {"user_id": 2, "filter": BOOKS}]}
    )
    first, good, second = answer["results"]
    assert [each["path"] for each in first["error"]["errors"]] == ["$.user_id", FILM_FAULT["path"]]
    assert good["recommendations"] == RANKED["items"]
    assert [each["path"] for each in second["error"]["errors"]] == ["$.user_id"]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ({"user_id": 7, "kind": "stare", "time": "noon"}, ["$.user_id", "$.kind", "$.time"]),
        ({"kind": "view", "moment": "x"}, ["$.user_id", "$.moment", "$.item_id"]),
        ({"user_id": "a", "kind": 3}, ["$.kind"]),
    ],
)
def test_an_interaction_lists_undeclared_kinds_beside_wrong_types(data, found):
    """An item that is missing is listed if the kind is known."""
    with pytest.raises(InvalidRequestError) as caught:
        read_interaction(event(data), kinds=default_declaration().events)
    assert paths(caught) == found


def values(*given: tuple[str, list[object]]) -> list[dict[str, object]]:
    return [{"attribute": name, "values": each} for name, each in given]


def test_updates_list_undeclared_attributes_beside_wrong_types():
    """Events about users and about items."""
    data = {"attributes": values(("hair", ["red"]), ("city", [3]), ("spent", ["much"]))}
    with pytest.raises(InvalidRequestError) as caught:
        read_update(event(data, events.USER_UPDATED), attributes=SHOP.users.attributes)
    assert paths(caught) == [
        "$.user_id",
        "$.attributes[1].values[0]",
        "$.attributes[0].attribute",
        "$.attributes[2].values",
    ]
    shop = parse_declaration('events.view.weight = 1\nitems.attributes.price.kind = "number"', "shop.toml")
    upsert = {"item_id": 3, "attributes": values(("price", ["cheap"]))}
    with pytest.raises(InvalidRequestError) as caught:
        read_upsert(event(upsert, events.ITEM_UPSERTED), attributes=shop.items.attributes)
    assert paths(caught) == ["$.item_id", "$.attributes[0].values"]


def test_a_group_of_answers_lists_columns_of_wrong_length_beside_wrong_types():
    """Each fault has its place in its column."""
    columns: dict[str, object] = {
        "exposure_id": ["e", "f"],
        "user_id": ["a", 7],
        "items": [["i"], ["i", ""]],
        "time_us": [1],
        "took_us": [1, 2],
        "origins": [{}],
        "origin": [0, 1],
        "propensities": [[0.5, 0.5], None],
    }
    with pytest.raises(InvalidRequestError) as caught:
        read_group(event({"parts": [columns]}))
    wrong = ["user_id[1]", "items[1][1]", "time_us", "origin[1]", "propensities[0]"]
    assert paths(caught) == [f"$.parts[0].{each}" for each in wrong]


def test_a_declaration_lists_contradictions_beside_wrong_types():
    """A contradiction that a faulty word may cause is left out: the kind of `price` is a wrong word, and its range may be right."""
    text = """
events.view.weight = 1
events.look = { weight = "much" }
rules.filters = ["brand"]
rules.allow = [{ attribute = "price", at_least = 3 }]
[items.attributes.price]
kind = "numeric"
[items.attributes.title]
kind = "number"
"""
    with pytest.raises(DeclarationError) as caught:
        parse_declaration(text, "shop.toml")
    assert [line.partition(" must")[0] for line in str(caught.value).splitlines()] == [
        "shop.toml:3: events.look.weight",
        "shop.toml:4: rules.filters[0]",
        "shop.toml:7: items.attributes.price.kind",
        "shop.toml:9: items.attributes.title.kind",
    ]
