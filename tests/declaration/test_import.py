"""An import by a declaration: kinds with negative weights, and attributes by kind."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from offline.collection import collect_records
from offline.inputs import DataOptions, load_data
from offline.interactions import Interactions
from offline.learnable import learnable
from offline.reading.csv_files import read_csv
from offline.reading.faults import DataError, Faults
from recrank.artefact import Item
from recrank.filters import ItemAttributes
from recsys.contracts.wire import Condition
from recsys.declaration.reader import parse_declaration
from recsys.declaration.types import Declaration
from recsys.records import HistoryItem

pytestmark = pytest.mark.may_block

SHOP = """
[events]
view = { weight = 1, counter = "views" }
purchase = { weight = 5, counter = "purchases" }
return = { weight = -5 }

[items.attributes]
title = { kind = "text", column = "label" }
brand = { kind = "categorical" }
sizes = { kind = "multi-valued", column = "available sizes" }
price = { kind = "number" }
since = { kind = "time" }
blurb = { kind = "text" }
"""
ROWS = """user,item,timestamp,kind,weight
ann,coat,10,purchase,
ann,coat,20,view,
ann,hat,30,purchase,
ann,hat,40,return,
ann,sock,50,return,0.5
bob,coat,10,view,3
"""
ITEMS = """item_id,label,brand,Available_Sizes,price,since,blurb,colour
coat,Warm coat,acme|co,S|M,99.5,2026-01-01,Wool | soft,red
hat,,,,,,,
"""


@pytest.fixture
def shop() -> Declaration:
    return parse_declaration(SHOP, "shop.toml")


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_a_kind_gives_a_row_its_weight_and_its_counter(tmp_path, shop):
    """A weight of the row multiplies that of its kind. A tie of 0 or below is avoided, at its newest time."""
    source = read_csv(write(tmp_path / "a.csv", ROWS), items=None, users=None, declaration=shop)
    ann, bob = collect_records(source.rows, age_groups={})
    assert ann.history == [HistoryItem("coat", 6.0, 20_000_000)]
    assert ann.avoided == [HistoryItem("sock", -2.5, 50_000_000), HistoryItem("hat", 0.0, 40_000_000)]
    assert (ann.views, ann.clicks, ann.purchases) == (1, 0, 2)
    assert bob.history == [HistoryItem("coat", 3.0, 10_000_000)]


def test_users_who_only_returned_something_are_kept(tmp_path, shop):
    """Their record says what not to show them."""
    rows = write(tmp_path / "a.csv", "user,item,kind\nann,coat,return\n")
    (ann,) = collect_records(read_csv(rows, items=None, users=None, declaration=shop).rows, age_groups={})
    assert (ann.history, [item.item_id for item in ann.avoided]) == ([], ["coat"])


def test_unknown_kinds_are_faults_with_the_declared_ones(tmp_path, shop):
    """The message lists what is declared."""
    rows = write(tmp_path / "a.csv", "user,item,kind\nann,coat,stare\nann,coat,\nann,coat,view\n")
    with pytest.raises(DataError) as caught:
        list(read_csv(rows, items=None, users=None, declaration=shop).rows)
    assert f"{rows}:2: the kind must be one of view, purchase, return, not 'stare'" in str(caught.value)
    assert "(the first of 2 such lines)" in str(caught.value)


def test_the_least_weight_keeps_negative_rows(tmp_path, shop):
    """A least weight leaves out weak signs of interest, not dislikes."""
    options = DataOptions(write(tmp_path / "a.csv", ROWS), min_weight=4, declaration=shop)
    weights = [row.weight for row in load_data(options).source.rows]
    assert weights == [5.0, 5.0, -5.0, -2.5]


def test_liked_rows_are_those_of_positive_pairs(tmp_path, shop):
    """An evaluation looks for items whose events add up to more than 0."""
    source = read_csv(write(tmp_path / "a.csv", ROWS), items=None, users=None, declaration=shop)
    liked = Interactions.of(source.rows).liked()
    assert [liked.item_ids[item] for item in liked.items.tolist()] == ["coat", "coat", "coat"]
    assert liked.weights.tolist() == [5.0, 1.0, 3.0]


def test_attributes_are_read_by_their_kinds(tmp_path, shop):
    """Columns are found by the declared names; columns that are not declared are ignored."""
    path = write(tmp_path / "items.csv", ITEMS)
    items = read_csv(None, items=path, users=None, declaration=shop).items
    assert items["coat"].title == "Warm coat"
    assert items["coat"].attributes == {
        "brand": ("acme|co",),
        "sizes": ("S", "M"),
        "price": ("99.5",),
        "since": ("1767225600.0",),
        "blurb": ("Wool | soft",),
    }
    assert items["hat"] == Item("hat")


@pytest.mark.parametrize(
    ("header", "line", "says"),
    [
        ("item_id,label,brand", "a,b,c", "has no column 'available sizes', which the declaration names"),
        ("item_id,label,available sizes,price", "a,b,c,cheap", "price must be a number, not 'cheap'"),
        ("item_id,label,available sizes,price", "a,b,c,inf", "price must be a number, not 'inf'"),
        ("item_id,label,available sizes,since", "a,b,c,soon", "since: the timestamp must be seconds"),
        ("item_id,available sizes", "a,b", "has no column 'label' for"),
    ],
)
def test_missing_columns_and_wrong_values_are_faults(tmp_path, shop, header, line, says):
    """A column that the declaration names must exist; a number and a time must be readable."""
    faults = Faults()
    with pytest.raises(DataError, match=says):
        read_csv(None, items=write(tmp_path / "items.csv", f"{header}\n{line}\n"), users=None, declaration=shop,
                 faults=faults).faults.check()  # fmt: skip


def catalogue() -> dict[str, Item]:
    return {
        f"i{n}": Item(f"i{n}", attributes={"brand": ("acme",), "price": (repr(float(n)),), "blurb": (f"text {n}",)})
        for n in range(20)
    }


def test_training_learns_from_tenths_of_a_number_and_from_no_text(shop):
    """Two items rarely share a price, and share a tenth of the catalogue with others."""
    found = learnable(catalogue(), shop)
    assert [found[f"i{n}"].attributes["price"] for n in (0, 1, 2, 19)] == [("0",), ("0",), ("1",), ("9",)]
    assert set(found["i0"].attributes) == {"brand", "price"}
    off = parse_declaration(SHOP + "[training]\nsources = []\n", "shop.toml")
    assert learnable(catalogue(), off)["i0"].attributes == {}


def items_of(attributes: ItemAttributes, **condition: object) -> list[int]:
    return [n for n, met in enumerate(attributes.mask(Condition(**condition)).tolist()) if met]  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["cheap", "nan", "inf"])
def test_an_item_whose_number_cannot_be_read_counts_as_without(shop, text):
    """An entry of the catalogue from an earlier version stops neither the other items nor a training."""
    items = catalogue() | {"odd": Item("odd", attributes={"brand": ("acme",), "price": (text,)})}
    attributes = ItemAttributes(list(items.values()), shop)
    assert items_of(attributes, attribute="price", at_least=-1e9) == list(range(20))
    assert learnable(items, shop)["odd"].attributes == {"brand": ("acme",)}


def test_numbers_are_filtered_by_range(shop):
    """Both ends belong to the range, and items without a number are outside."""
    attributes = ItemAttributes([*catalogue().values(), Item("free")], shop)
    assert items_of(attributes, attribute="price", at_least=17) == [17, 18, 19]
    assert items_of(attributes, attribute="price", at_least=3, at_most=4) == [3, 4]
    assert items_of(attributes, attribute="price", at_most=-1) == []
    assert len(items_of(attributes, attribute="brand", any_of=["acme"])) == 20


@pytest.mark.parametrize(
    ("condition", "path"),
    [
        ({"attribute": "price", "any_of": ["1"]}, "$[0].any_of"),
        ({"attribute": "price"}, "$[0]"),
        ({"attribute": "brand", "at_least": 1}, "$[0].at_least"),
        ({"attribute": "blurb", "any_of": ["text 1"]}, "$[0].attribute"),
        ({"attribute": "colour", "any_of": ["red"]}, "$[0].attribute"),
    ],
)
def test_conditions_that_do_not_suit_their_attribute_are_faults(shop, condition: Mapping[str, object], path):
    """The fault names the part of the condition."""
    attributes = ItemAttributes(list(catalogue().values()), shop)
    assert path in [fault.path for fault in attributes.faults([Condition(**condition)], "$")]  # type: ignore[arg-type]


def test_a_filter_may_be_limited_to_some_attributes(shop):
    """Other attributes are unknown to the caller."""
    attributes = ItemAttributes(list(catalogue().values()), shop)
    (fault,) = attributes.faults([Condition("brand", ["acme"])], "$.filter", allowed=["price"])
    assert (fault.path, fault.detail) == ("$.filter[0].attribute", "must be one of: price")


USERS = (
    SHOP
    + """
[users.attributes]
age_group = { kind = "categorical" }
title = { kind = "categorical" }
category = { kind = "multi-valued", column = "tags" }
spent = { kind = "number" }
"""
)


def test_attributes_of_users_are_read_by_kind(tmp_path):
    """Names that items also have are columns of the users file; other columns are ignored."""
    text = "user_id,age,title,tags,spent,secret\nann,30,Dr,a|b,1e1,x\nzoe,,,,,y\neve,,,c,,z\n"
    users, rows = write(tmp_path / "u.csv", text), write(tmp_path / "a.csv", ROWS)
    source = read_csv(rows, items=None, users=users, declaration=parse_declaration(USERS, "shop.toml"))
    ann, bob, eve = collect_records(source.rows, age_groups=source.age_groups, attributes=source.attributes)
    assert (ann.user_id, ann.age_group) == ("ann", "25-34")
    assert ann.user_attributes == {"title": ["Dr"], "category": ["a", "b"], "spent": ["10.0"]}
    assert (bob.user_id, bob.user_attributes) == ("bob", {})
    assert (eve.user_id, eve.user_attributes, eve.history) == ("eve", {"category": ["c"]}, [])


def test_faults_of_attributes_of_users_have_their_lines(tmp_path):
    """A number that cannot be read, and more values than a request may carry, are refused."""
    many = "|".join(map(str, range(101)))
    users = write(tmp_path / "u.csv", f"user_id,tags,spent\nann,a,much\nbob,{many},\n")
    rows = write(tmp_path / "a.csv", ROWS)
    source = read_csv(rows, items=None, users=users, declaration=parse_declaration(USERS, "shop.toml"))
    with pytest.raises(DataError) as caught:
        list(source.rows)
    assert f"{users}:2: spent must be a number, not 'much'" in str(caught.value)
    assert f"{users}:3: an attribute of a user must have at most 100 values" in str(caught.value)
