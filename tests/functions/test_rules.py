"""The setting RULES of rank_items, and the rules that a model follows."""

import json

import pytest

from chassis.environment import Reader
from functions.rank_items.rules import read_rules
from recrank.artefact import ArtefactError
from recrank.declared_rules import apply_rules
from recrank.model import Query, RankingModel
from recsys.declaration.types import DeclaredRules
from tests.ranking.test_filters import with_kinds
from tests.ranking.test_mixture import ADULT
from tests.ranking.test_rules import kind
from tools.bench.batching import make_artefact


@pytest.fixture
def model():
    return RankingModel(with_kinds(make_artefact(items=500, dims=16)))


def read(text: str) -> tuple[DeclaredRules | None, list[str]]:
    reader = Reader({"RULES": text})
    return read_rules(reader), reader.faults


def read_document(**rules: object) -> DeclaredRules:
    found, faults = read(json.dumps(rules))
    assert found
    assert not faults
    return found


def kinds(model: RankingModel, *, top_k: int = 30) -> list[str]:
    return [kind(item_id) for item_id in model.rank([Query(ADULT, ["item_1"], top_k)])[0].item_ids]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{", "RULES"),
        ('{"cap": {}}', "cap"),
        ('{"caps": {"category": 0}}', "caps"),
        ('{"diversity": 2}', "diversity"),
        ('{"boosts": [{"attribute": "category", "any_of": ["film"]}]}', "score"),
        ('{"allow": [{"attribute": "category", "any_of": []}]}', "allow"),
    ],
)
def test_faults_name_the_place(text, place):
    """A rule that is not understood is a fault of the settings, with its place."""
    _, faults = read(text)
    assert len(faults) == 1
    assert place in faults[0]


def test_all_faults_are_listed():
    """One start shows every fault of the rules."""
    _, faults = read('{"diversity": 2, "cap": {}, "allow": [{"attribute": "category"}], "boosts": [{"score": "1"}]}')
    assert faults == [
        "RULES: $.boosts[0].attribute is missing",
        "RULES: $.boosts[0].score must be a number, not a string",
        "RULES: $.diversity must be at most 1",
        "RULES: $.cap is not a known field",
        "RULES: $.allow[0] must have any_of, at_least or at_most",
    ]


def test_without_the_setting_nothing_changes(model):
    """The default has no rules, and lists stay as they are."""
    before = model.rank([Query(ADULT, ["item_1"], 30)])
    assert read("{}") == (None, [])
    apply_rules(DeclaredRules(), model)
    assert model.rank([Query(ADULT, ["item_1"], 30)]) == before


def test_allow_and_deny_leave_the_items_between_them(model):
    """Items must meet every condition of allow and none of deny; unavailable items stay out as well."""
    apply_rules(
        read_document(
            allow=[{"attribute": "category", "any_of": ["film", "book"]}],
            deny=[{"attribute": "category", "any_of": ["film"]}],
        ),
        model,
    )
    model.make_unavailable(["item_95"])
    ranking = model.rank([Query(ADULT, ["item_1"], 500)])[0]
    assert {kind(item_id) for item_id in ranking.item_ids} == {"book"}
    assert len(ranking.item_ids) == 19


def test_every_rule_takes_effect(model):
    """Pins, boosts, caps and diversity of the setting reach the lists."""
    apply_rules(
        read_document(
            pins=["item_99", "item_98"],
            boosts=[{"attribute": "category", "any_of": ["book"], "score": 100}],
            caps={"category": 2},
            diversity=0.1,
        ),
        model,
    )
    ranking = model.rank([Query(ADULT, ["item_1"], 6)])[0]
    assert ranking.item_ids[:2] == ["item_99", "item_98"]
    found = [kind(item_id) for item_id in ranking.item_ids]
    assert found.count("book") == 2
    assert max(found.count(each) for each in found if each) <= 2


def test_unknown_attributes_and_empty_catalogues_stop_the_start(model):
    """An instance does not start if a rule can never work, and says which."""
    with pytest.raises(ArtefactError, match="colour"):
        apply_rules(read_document(caps={"colour": 1}), model)
    with pytest.raises(ArtefactError, match="no item"):
        apply_rules(read_document(allow=[{"attribute": "category", "any_of": ["flim"]}]), model)


def test_rules_about_items_that_are_not_there_are_logged(model, caplog):
    """A category or a pinned item may come back with the next model, so the instance starts."""
    apply_rules(read_document(pins=["item_9999"], deny=[{"attribute": "category", "any_of": ["flim"]}]), model)
    assert [record.reason for record in caplog.records] == [
        "rules.deny[0].any_of[0]: no item has this category; some are: book, film, game, song",
        "rules.pins: the catalogue has no item 'item_9999'",
    ]
    assert len(kinds(model)) == 30
