"""The fields `history`, `item_id` and `include` of a request, from recommend's door to the reasons of rank_items."""

import json

import msgspec
import numpy as np
import pytest
from msgspec import Raw

from chassis.wire.problems import InvalidRequestError
from functions.recommend.recommender import join_session
from recrank.answers import answer_items, describe_item
from recrank.artefact import Artefact
from recrank.encoder import Folding
from recrank.model import Query, RankingModel
from recrank.reasons import FACTORS, NEIGHBOURS, POPULARITY
from recsys.contracts import wire
from recsys.contracts.wire import MAX_HISTORY, SessionItem
from tests.functions.harness import FEATURES, RANKED, Harness
from tests.ranking.test_mixture import ADULT, make_blended
from topk.row_lists import RowLists

STRANGER = msgspec.structs.replace(ADULT, age_group="unknown")


def refused(body: object) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequestError) as caught:
        wire.recommend_request.decode(json.dumps(body).encode())
    return [(fault.path, fault.detail) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({}, [("$.user_id", "is missing; send user_id, history or item_id")]),
        ({"history": []}, [("$.user_id", "is missing; send user_id, history or item_id")]),
        (
            {"top_k": 500},
            [("$.top_k", "must be at most 100"), ("$.user_id", "is missing; send user_id, history or item_id")],
        ),
        ({"user_id": ""}, [("$.user_id", "must not be empty")]),
        ({"item_id": ""}, [("$.item_id", "must not be empty")]),
        (
            {"history": [{"item_id": "a", "time": "noon"}, {"item_id": "b"}, {"item_id": "c", "time": "1"}]},
            [(f"$.history[{n}].time", "must be a time with a time zone, such as 2026-01-31T12:00:00Z") for n in (0, 2)],
        ),
        (
            {"user_id": "a", "include": ["price"]},
            [("$.include[0]", "must be one of 'attributes', 'exposure', 'reason', 'title'")],
        ),
    ],
)
def test_faults_of_the_door_are_listed(body, faults):
    """A request names a user, a session or an item; times have a form; only known facts are included."""
    assert refused(body) == faults


def test_a_session_is_sorted_by_time_and_precedes_the_stored_history():
    """Items without a time keep their order and come first; an item counts once."""
    session = [
        SessionItem("old", "2026-01-01T00:00:00Z"),
        SessionItem("new", "2026-01-01T03:00:00+02:00"),
        SessionItem("a"),
        SessionItem("b"),
    ]
    joined = msgspec.json.decode(join_session(session, Raw(b'["old","before"]')))
    assert joined == ["a", "b", "new", "old", "before"]
    long = Raw(msgspec.json.encode([f"i{n}" for n in range(MAX_HISTORY)]))
    assert len(msgspec.json.decode(join_session(session, long))) == MAX_HISTORY


def test_an_anonymous_session_asks_no_store():
    """extract_features is not called, and rank_items gets the session."""
    harness = Harness()
    answer = harness.answer({"history": [{"item_id": "x"}], "include": ["title"]})
    assert answer["user_id"] == ""
    assert harness.features.sent == []
    (sent,) = harness.ranking.sent
    assert (sent["history"], sent["include"]) == (["x"], ["title"])


def test_a_batch_may_mix_users_and_sessions():
    """The store is asked for the users alone, and each request gets its own history."""
    features = {**FEATURES, "history": ["stored"]}
    harness = Harness(features, {"results": [RANKED, RANKED, RANKED]})
    harness.answer({"requests": [{"history": [{"item_id": "x"}]}, {"user_id": "ann"}, {"item_id": "y"}]})
    assert harness.features.sent == [{"user_id": "ann"}]
    sent = harness.ranking.sent[0]["requests"]
    assert [each["history"] for each in sent] == [["x"], ["stored"], []]
    assert [each.get("item_id") for each in sent] == [None, None, "y"]


@pytest.fixture(scope="module")
def artefact() -> Artefact:
    return make_blended()


@pytest.fixture(scope="module")
def model(artefact: Artefact) -> RankingModel:
    return RankingModel(artefact)


def reasons(model: RankingModel, query: Query) -> list[dict[str, str]]:
    (ranking,) = model.rank([query])
    items = msgspec.json.decode(wire.encode(answer_items(ranking, model)))
    return [each["reason"] for each in items]


def test_reasons_are_the_same_in_every_batch_and_change_no_list(model):
    """The list of a request that includes reasons is that of one without."""
    queries = [Query(ADULT, model.item_ids[n : n + 5], 10, include=["reason"]) for n in range(4)]
    together = model.rank(queries)
    assert [model.rank([each])[0] for each in queries] == together
    plain = model.rank([msgspec.structs.replace(each, include=[]) for each in queries])
    assert [each.item_ids for each in plain] == [each.item_ids for each in together]
    assert [each.scores for each in plain] == [each.scores for each in together]


def test_a_reason_names_an_item_of_the_history(model):
    """Factors and neighbours are spoken for by an item of the history, popularity by none."""
    history = model.item_ids[3:8]
    found = reasons(model, Query(ADULT, history, 20, include=["reason"]))
    assert {each["source"] for each in found} <= {FACTORS, NEIGHBOURS, POPULARITY}
    spoken = [each["item_id"] for each in found if "item_id" in each]
    assert spoken
    assert set(spoken) <= set(history)
    assert all("item_id" not in each for each in found if each["source"] == POPULARITY)


def test_a_stranger_gets_popular_items_for_that_reason(model):
    """Without a history and an age, the popular list is the reason."""
    assert reasons(model, Query(STRANGER, [], 3, include=["reason"])) == [{"source": POPULARITY}] * 3


def test_the_terms_of_the_factors_add_up_to_the_score(artefact):
    """The terms of the history and of the start add up to the score by the factors."""
    items = artefact.arrays["item_factors"]
    encoder = Folding.of(artefact.arrays, items)
    history, rows = np.array([5, 2, 9]), np.arange(20)
    terms = encoder.speak(history, rows, features=ADULT, items=items)
    start = items[rows] @ (encoder.fold_in.fade(history.size) * encoder.prior.means([ADULT])[0])
    (user,) = encoder.vectors(RowLists.of([history]), [ADULT])
    assert np.allclose(terms.sum(axis=0) + start, items[rows] @ user, atol=1e-5)


def test_an_item_is_described_with_its_availability(artefact):
    """A query about an item that asks for it gets what the model knows of it; other queries get nothing."""
    model = RankingModel(artefact)
    shown, hidden = model.item_ids[4], model.item_ids[5]
    model.make_unavailable([hidden])
    asked = Query(STRANGER, [shown], 2, include=["item"], about=shown)
    one, other, none = model.rank(
        [asked, msgspec.structs.replace(asked, about=hidden), msgspec.structs.replace(asked, include=["title"])]
    )
    found, closed = describe_item(one, model), describe_item(other, model)
    assert found
    assert closed
    assert (found.item_id, found.available, closed.available) == (shown, True, False)
    assert found.attributes == artefact.items[4].attributes
    assert describe_item(none, model) is None


def test_a_default_answer_has_the_fields_of_before(model):
    """Without `include`, an item is an id and a score."""
    (ranking,) = model.rank([Query(ADULT, model.item_ids[:3], 2)])
    assert [list(each) for each in msgspec.json.decode(wire.encode(answer_items(ranking, model)))] == [
        ["item_id", "score"]
    ] * 2
