"""Changes of the catalogue applied to an artefact."""

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from offline.training import train
from recrank.artefact import Artefact, ArtefactError, Item, read_artefact
from recrank.changes import ATTRIBUTE_VECTORS, change
from recrank.model import Query, RankingModel
from recstore.catalogue.entries import REMOVED, Entry, describe
from recsys.contracts.wire import Condition
from recsys.features import UNKNOWN_FEATURES
from recsys.records import HistoryItem, UserRecord

KINDS = ("tea", "book")
ITEMS = {f"{kind}{n}": Item(f"{kind}{n}", "", {"kind": (kind,)}) for kind in KINDS for n in range(12)}
DESCRIBED = describe(Item("new-tea", "Assam", {"kind": ("tea", "unheard-of")}), at_us=1)


@pytest.fixture(scope="module")
def artefact(tmp_path_factory) -> Artefact:
    """Return a model of users who like either tea or books."""
    records = [
        UserRecord(
            f"u{n}", "55+", history=[HistoryItem(f"{KINDS[n % 2]}{(n + k) % 12}", 1.0, 10 - k) for k in range(5)]
        )
        for n in range(60)
    ]
    folder: Path = tmp_path_factory.mktemp("model")
    train(records, items=ITEMS, folder=folder, dataset="test")
    return read_artefact(folder)


def entries(*found: Entry) -> dict[str, Entry]:
    return {entry.item_id: entry for entry in found}


def ranked(artefact: Artefact, history: list[str], *, top_k: int = 30) -> dict[str, float]:
    (ranking,) = RankingModel(artefact).rank([Query(UNKNOWN_FEATURES, history, top_k)])
    return dict(zip(ranking.item_ids, ranking.scores, strict=True))


def test_a_new_item_is_ranked_by_its_attributes(artefact):
    """A tea drinker gets the new tea before all books, a reader gets books first; scores of other items keep their bits."""
    changed, unplaced = change(artefact, entries(DESCRIBED))
    assert unplaced == []
    tea, book = ranked(changed, ["tea0", "tea1"]), ranked(changed, ["book0", "book1"])
    assert tea["new-tea"] > max(score for item, score in tea.items() if item.startswith("book"))
    assert book["new-tea"] < max(score for item, score in book.items() if item.startswith("book"))
    before = ranked(artefact, ["tea0", "tea1"])
    assert {item: score for item, score in tea.items() if item != "new-tea"} == before


def test_a_new_item_counts_in_a_history(artefact):
    """A user who only knows the new tea gets teas."""
    changed, _ = change(artefact, entries(DESCRIBED))
    assert all(item.startswith("tea") for item in list(ranked(changed, ["new-tea"]))[:10])


def test_the_result_depends_on_the_entries_alone(artefact):
    """Entries in another order give the same rows."""
    several = [describe(Item(f"new-{n}", "", {"kind": (KINDS[n % 2],)}), at_us=n) for n in range(11)]
    one, _ = change(artefact, entries(*several))
    other, _ = change(artefact, entries(*several[::-1]))
    assert one.items == other.items
    assert all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays)


def test_a_known_item_gets_its_new_attributes(artefact):
    """A filter finds the item by its new value and not by the former one; a removed item keeps its row."""
    changed, _ = change(
        artefact, entries(describe(Item("tea3", "", {"kind": ("coffee",)}), at_us=1), Entry("tea4", REMOVED, 1))
    )
    model = RankingModel(changed)
    query = Query(UNKNOWN_FEATURES, [], 30, filter=[Condition("kind", ["coffee"])])
    assert model.rank([query])[0].item_ids == ["tea3"]
    assert "tea3" not in model.rank([replace(query, filter=[Condition("kind", ["tea"])])])[0].item_ids
    assert model.row_of("tea4") is not None
    assert len(changed.items) == len(artefact.items)


def test_items_that_the_model_cannot_place_are_named(artefact):
    """An item without a known attribute value is left out until the next training."""
    strange = describe(Item("odd", "", {"kind": ("unheard-of",), "brand": ("tea",)}), at_us=1)
    changed, unplaced = change(artefact, entries(strange, Entry("gone", REMOVED, 1), Entry("x", available=False)))
    assert (changed.items, unplaced) == (artefact.items, ["odd"])


def test_a_model_without_attributes_places_nothing(tmp_path, artefact):
    """A model of items without attributes has no map."""
    records = [UserRecord(f"u{n}", "55+", history=[HistoryItem(f"i{n % 3}", 1.0, 1)]) for n in range(9)]
    train(records, items={}, folder=tmp_path, dataset="test")
    plain = read_artefact(tmp_path)
    assert ATTRIBUTE_VECTORS not in plain.arrays
    assert change(plain, entries(DESCRIBED))[1] == ["new-tea"]


def test_a_map_of_other_items_is_refused(artefact):
    """An array with more or fewer rows than attribute values belongs to another artefact."""
    arrays = {**artefact.arrays, ATTRIBUTE_VECTORS: artefact.arrays[ATTRIBUTE_VECTORS][1:]}
    with pytest.raises(ArtefactError, match="train it again"):
        change(replace(artefact, arrays=arrays), entries(DESCRIBED))
