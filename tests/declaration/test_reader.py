"""Declarations: what is read, and the faults with their lines."""

import json
import tomllib
from pathlib import Path

import jsonschema_rs
import msgspec
import pytest

from recsys.declaration.reader import (
    DEFAULT,
    DeclarationError,
    default_declaration,
    parse_declaration,
    read_declaration,
)
from recsys.declaration.types import Attribute, Declaration, EventKind
from tools.declaration import schema
from tools.reference.pages import ROOT

pytestmark = pytest.mark.may_block


def faults(text: str) -> list[str]:
    with pytest.raises(DeclarationError) as caught:
        parse_declaration(text, "recsys.toml")
    return str(caught.value).splitlines()


def test_the_demo_s_declaration_holds_the_weights_and_counters_of_the_demo():
    """The file in the package is valid, and says what the demo data were counted by."""
    declared = default_declaration()
    assert declared.events == {
        "view": EventKind(1.0, "views"),
        "click": EventKind(2.0, "clicks"),
        "purchase": EventKind(5.0, "purchases"),
    }
    assert declared.items.other_columns == "attributes"
    assert declared.items.attributes["category"] == Attribute("multi-valued")


def test_all_faults_are_listed_with_their_lines():
    """One run shows every fault, in the order of the lines."""
    assert faults(
        """
[events.view]
weight = "heavy"
[events.dislike]
weight = -2000
colour = 1

[[rules.boosts]]
attribute = "brand"
any_of = ["acme"]

[rules]
pins = [3]
[events]
"like" = {}
"""
    ) == [
        "recsys.toml:3: events.view.weight must be a number, not a string",
        "recsys.toml:5: events.dislike.weight must be at least -1000",
        "recsys.toml:6: events.dislike.colour is not a known field",
        "recsys.toml:8: rules.boosts[0].score is missing",
        "recsys.toml:9: rules.boosts[0].attribute must be a declared attribute; declared are: none",
        "recsys.toml:13: rules.pins[0] must be a string, not a number",
        "recsys.toml:15: events.like.weight is missing",
    ]


def test_contradictions_are_listed_with_their_lines():
    """Faults between fields are found once the types are right."""
    text = """[events.hide]
weight = -1
[events.session_end]
weight = -1
[events.Buy]
weight = 0.0001
[items.attributes]
title = { kind = "number" }
price = { kind = "number" }
blurb = { kind = "text" }
[users.attributes.age_group]
kind = "number"
[rules]
caps = { price = 1, colour = 2 }
filters = ["blurb"]
deny = [
  { attribute = "price", any_of = ["1"] },
  { attribute = "price" },
]
"""
    found = faults(text)
    assert [line.split(":")[1] for line in found] == sorted((line.split(":")[1] for line in found), key=int)
    assert [line.split(": ", 1)[1].split(" ")[0] for line in found] == [
        "events",
        "events.session_end",
        "events.Buy",
        "events.Buy.weight",
        "items.attributes.title.kind",
        "users.attributes.age_group.kind",
        "rules.caps.colour",
        "rules.caps.price",
        "rules.filters[0]",
        "rules.deny[0].any_of",
        "rules.deny[1]",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[events.view\n", "recsys.toml:1: not TOML"),
        ("a = 1\na = 2\n", "recsys.toml:2: not TOML"),
        ("", "recsys.toml:1: events is missing"),
        ("[events.view]\nweight = nan\n", "recsys.toml:2: events.view.weight is not a finite number"),
        ("[events.view]\nweight = 2026-01-01\n", "recsys.toml:2: events.view.weight must be a number, not a string"),
        ('note = """\n[events.view]\nweight = 1\n"""\n', "recsys.toml:1: note is not a known field"),
    ],
)
def test_the_first_fault_names_its_line(text, says):
    """Syntax, missing tables, numbers that are not finite, dates and long texts are faults of a line."""
    assert any(line.startswith(says) for line in faults(text))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    """The message names the file and the reason."""
    with pytest.raises(DeclarationError, match="none.toml: cannot be read: No such file"):
        read_declaration(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(DeclarationError, match="bytes.toml: cannot be read"):
        read_declaration(tmp_path / "bytes.toml")


def test_a_declaration_survives_the_way_through_json(tmp_path):
    """The copy that the functions read equals the original and has its digest."""
    path = tmp_path / "copy.json"
    path.write_bytes(default_declaration().encode())
    assert read_declaration(path) == default_declaration()
    assert read_declaration(path).digest == default_declaration().digest


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            '[events.view]\nweight = 1\ncounter = "clicks"\n',
            'events.view.counter is "clicks" in here and "views" in there',
        ),
        ("[events.view]\nweight = 1\n", "events.view.counter is null in here"),
    ],
)
def test_a_difference_names_the_first_field(change, says):
    """Two declarations differ in the first field by name."""
    text = DEFAULT.read_text("utf-8")
    changed = parse_declaration(text.replace('[events.view]\nweight = 1\ncounter = "views"\n', change), "a.toml")
    found = changed.describe_difference(default_declaration(), mine="here", theirs="there")
    assert found
    assert found.startswith(says)


def test_rules_and_training_may_differ():
    """They take effect without another import."""
    changed = parse_declaration(DEFAULT.read_text("utf-8") + "search = true\n[rules]\ndiversity = 0.2\n", "a.toml")
    assert changed != default_declaration()
    assert changed.describe_difference(default_declaration(), mine="a", theirs="b") is None


def test_weights_are_exact_in_every_sum():
    """A weight is rounded to a multiple of 1 / 1024."""
    assert EventKind(0.1).exact_weight == 102 / 1024
    assert EventKind(-0.5).exact_weight == -0.5


def test_the_published_schema_is_that_of_the_types_and_accepts_the_demo_s_declaration():
    """Editors check a file by the published schema: it accepts what the program accepts and refuses faults."""
    published = json.loads((ROOT / "docs/reference/recsys.schema.json").read_text("utf-8"))
    assert published == json.loads(schema())
    validator = jsonschema_rs.validator_for(published)
    assert list(validator.iter_errors(tomllib.loads(DEFAULT.read_text("utf-8")))) == []
    wrong = {"events": {"view": {"weight": "x"}}, "colours": {}}
    places = {"/".join(map(str, error.instance_path)) for error in validator.iter_errors(wrong)}
    assert places == {"", "events/view/weight"}
    line = DEFAULT.read_text("utf-8").splitlines()[0]
    assert (DEFAULT.parent / line.removeprefix("#:schema ")).resolve() == Path(
        ROOT / "docs/reference/recsys.schema.json"
    )


def test_a_declaration_is_frozen():
    """No part of the program can change what others follow."""
    with pytest.raises(AttributeError):
        default_declaration().rules = None  # type: ignore[misc,assignment]
    assert msgspec.json.decode(default_declaration().encode(), type=Declaration) == default_declaration()


@pytest.mark.parametrize("number", ["inf", "-inf", "nan", "1e400"])
def test_a_number_that_is_not_finite_is_refused(number):
    """The message does not speak of another kind of value."""
    with pytest.raises(DeclarationError, match=r"a.toml:2: events.view.weight is not a finite number"):
        parse_declaration(f"[events.view]\nweight = {number}\n", "a.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        (".".join(["x"] * 5000) + " = 1", "nested too deeply"),
        ("x = " + "9" * 5000, "not TOML: Exceeds the limit"),
    ],
)
def test_what_no_parser_can_hold_is_refused(text, message):
    """Too many brackets, names or digits get a message, not a traceback."""
    with pytest.raises(DeclarationError, match=message):
        parse_declaration(text, "a.toml")


def test_a_byte_order_mark_is_no_fault(tmp_path):
    """Some editors write one at the start of a file."""
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xef\xbb\xbf[events.view]\r\nweight = 1\r\n")
    assert read_declaration(path).events["view"].weight == 1
