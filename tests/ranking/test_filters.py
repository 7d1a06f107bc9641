"""Filters are exact: a filtered list is the list that remains when all other items are excluded."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recrank.artefact import Artefact, Item
from recrank.filters import ItemAttributes, Shelf
from recrank.model import Query, RankingModel
from recsys.contracts.wire import Condition
from recsys.features import UNKNOWN_FEATURES
from tests.ranking.test_mixture import ADULT, make_blended, make_queries
from tools.bench.batching import make_artefact
from topk.item_table import ItemTable
from topk.row_lists import RowLists
from topk.scoring import score_candidates, score_rows_of

ITEMS = 500
KINDS = ["film"] * 50 + ["song"] * 30 + ["game"] * 15 + ["book"] * 4 + [""]
FILTERS = [
    [],
    [Condition("category", ["film"])],
    [Condition("category", ["book"])],
    [Condition("category", ["song", "game"])],
    [Condition("category", ["film", "game"]), Condition("category", ["game", "book"])],
]


def with_kinds(artefact: Artefact) -> Artefact:
    """Return *artefact* with categories of very different frequency."""
    items = [
        Item(item.item_id, attributes={"category": (kind,)} if (kind := KINDS[row % 100]) else {})
        for row, item in enumerate(artefact.items)
    ]
    return Artefact(artefact.manifest, artefact.arrays, items)


def others(filter_: list[Condition]) -> list[str]:
    """Return the ids of the items that *filter_* leaves out."""
    return [
        f"item_{row}" for row in range(ITEMS) if not all(KINDS[row % 100] in condition.any_of for condition in filter_)
    ]


@pytest.fixture(scope="module", params=["factors", "blend", "large factors", "large blend"])
def model(request):
    """Return a model of each kind; large ones do not score the whole catalogue, although it is small."""
    artefact = with_kinds(make_blended() if "blend" in request.param else make_artefact(items=ITEMS, dims=16))
    with pytest.MonkeyPatch.context() as patch:
        if "large" in request.param:
            patch.setattr(ItemTable, "of", partial(ItemTable.of, dense_items=1))
        return RankingModel(artefact)


@pytest.mark.parametrize("filter_", FILTERS)
def test_a_filter_equals_the_exclusion_of_the_other_items(model, filter_):
    """The filtered answers are those for a request that excludes every other item, with equal scores."""
    model.make_unavailable(["item_4", "item_55"])
    for each in [*make_queries(12), Query(UNKNOWN_FEATURES, [], top_k=7)]:
        filtered = Query(each.features, each.history, ITEMS, each.exclude, filter_)
        excluding = Query(each.features, each.history, ITEMS, [*each.exclude, *others(filter_)])
        assert model.rank([filtered]) == model.rank([excluding])


def test_a_batch_of_filters_answers_what_its_queries_would(model):
    """Requests with different filters share a batch, and each gets its own answer."""
    queries = [
        Query(each.features, each.history, each.top_k, each.exclude, FILTERS[place % len(FILTERS)])
        for place, each in enumerate(make_queries(40))
    ]
    assert model.rank(queries) == [model.rank([query])[0] for query in queries]


def test_a_filter_leaves_full_lists(model):
    """A rare category fills a list from all of its items, not from what an unfiltered list happens to hold."""
    (ranking,) = model.rank([Query(ADULT, ["item_1"], 20, filter=[Condition("category", ["book"])])])
    assert len(ranking.item_ids) == 20
    assert all(KINDS[int(item_id[5:]) % 100] == "book" for item_id in ranking.item_ids)


@settings(max_examples=30, deadline=None)
@given(
    share=st.floats(0.0, 1.0),
    users=st.integers(1, 5),
    limit=st.integers(1, 60),
    dense=st.booleans(),
    seed=st.integers(0),
)
def test_a_subset_of_rows_is_ranked_as_by_hand(share, users, limit, dense, seed):
    """For random rows and exclusions, the kernel's answer equals a stable sort of these rows' exact scores."""
    rng = np.random.default_rng(seed)
    table = ItemTable.of(rng.integers(-3, 4, (300, 4)).astype(np.float32), dense_items=0)
    vectors = rng.integers(-3, 4, (users, 4)).astype(np.float32)
    rows = np.flatnonzero(rng.random(300) < share)
    exclude = [rng.choice(300, 30, replace=False) for _ in range(users)]
    with pytest.MonkeyPatch.context() as patch:
        if not dense:
            patch.setattr("topk.item_table.DENSE_ITEMS", 0)
        found = score_rows_of(vectors, table, rows, limit=limit, exclude=RowLists.of(exclude))
    whole = score_candidates(vectors, table, limit=300)
    for user in range(users):
        kept = [row for row in whole.ids[user].tolist() if row in rows and row not in exclude[user]][:limit]
        assert found.ids[user, : len(kept)].tolist() == kept
        assert found.counts[user] == len(kept)
        scores = dict(zip(whole.ids[user].tolist(), whole.scores[user].tolist(), strict=True))
        assert found.scores[user, : len(kept)].tolist() == [scores[row] for row in kept]
        assert (found.ids[user, len(kept) :] == -1).all()


def test_faults_name_what_no_item_has():
    """An unknown attribute and an unknown value are faults with their places; known values are listed."""
    attributes = ItemAttributes(
        [Item("a", attributes={"category": ("film",)}), Item("b", attributes={"category": ("song",)}), Item("c")]
    )
    faults = list(
        attributes.faults([Condition("colour", ["red"]), Condition("category", ["film", "flim"])], "$.filter")
    )
    assert [fault.path for fault in faults] == ["$.filter[0].attribute", "$.filter[1].any_of[1]"]
    assert "category" in faults[0].detail
    assert "film, song" in faults[1].detail


def test_a_shelf_keeps_few_subsets():
    """Subsets are shared by requests with the same filter; old ones are dropped, so memory is bounded."""
    shelf = Shelf(
        ItemAttributes([Item(f"item_{row}", attributes={"category": (f"kind {row}",)}) for row in range(100)])
    )
    first = shelf.subset([Condition("category", ["kind 0"])])
    assert shelf.subset([Condition("category", ["kind 0"])]) is first
    for row in range(50):
        shelf.subset([Condition("category", [f"kind {row}"])])
    assert shelf.subset([Condition("category", ["kind 0"])]) is not first
    assert shelf.subset([]) is None
