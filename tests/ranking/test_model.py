from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from chassis.server.service import StartError
from functions.rank_items.model_loader import load_model
from recrank.artefact import Artefact, ArtefactError, Item, write_artefact
from recrank.model import Query, RankingModel
from recsys.features import UNKNOWN_FEATURES
from tests.ranking.test_mixture import ADULT, ITEMS, make_queries
from tools.bench.batching import make_artefact


@pytest.fixture(scope="module")
def artefact():
    return make_artefact(items=ITEMS, dims=16)


@pytest.fixture
def model(artefact):
    return RankingModel(artefact)


def test_a_batch_equals_single_queries(model):
    """Users with and without features and with histories of any length get the same answer as alone."""
    queries = make_queries(80)
    assert model.rank(queries) == [model.rank([query])[0] for query in queries]


def test_excluded_and_unavailable_items_are_not_returned(model):
    """Items of the history, excluded items and unavailable items are not returned, until they are available again."""
    history, exclude, gone = ["item_1", "item_2"], ["item_3", "no such item"], ["item_4", "no such item either"]
    for features, had in [(ADULT, history), (UNKNOWN_FEATURES, history), (UNKNOWN_FEATURES, [])]:
        query = Query(features, had, top_k=ITEMS, exclude=exclude)
        before = set(model.rank([query])[0].item_ids)
        model.make_unavailable(gone)
        after = set(model.rank([query])[0].item_ids)
        model.make_unavailable([])
        assert before == {f"item_{row}" for row in range(ITEMS)} - {*had, *exclude}
        assert before - after == {"item_4"}
        assert set(model.rank([query])[0].item_ids) == before


def test_an_unknown_user_gets_the_popular_list(model, artefact):
    """A user without history and age gets the items by decreasing popularity."""
    popularity = artefact.arrays["item_popularity"]
    ranking = model.rank([Query(UNKNOWN_FEATURES, [], top_k=10)])[0]
    assert ranking.item_ids == [f"item_{row}" for row in np.lexsort((np.arange(ITEMS), -popularity))[:10]]
    assert ranking.scores == np.sort(popularity)[::-1][:10].tolist()


def test_a_new_interaction_changes_the_next_answer(model):
    """
    An item added to the history is not recommended again, and the other items change their order without training.
    """
    before = model.rank([Query(ADULT, ["item_7"], top_k=20)])[0]
    after = model.rank([Query(ADULT, [before.item_ids[0], "item_7"], top_k=20)])[0]
    assert before.item_ids[0] not in after.item_ids
    assert before.item_ids[1:] != after.item_ids[:19]


@pytest.mark.parametrize("name", ["item_factors", "fold_in", "prior_weights", "prior_knots_1"])
def test_a_missing_array_is_named(artefact, name):
    """An artefact without one of its arrays is refused with the array's name."""
    arrays = {key: array for key, array in artefact.arrays.items() if key != name}
    with pytest.raises(ArtefactError, match=name):
        RankingModel(Artefact(artefact.manifest, arrays, artefact.items))


@pytest.mark.parametrize("name", ["item_factors", "item_popularity", "fold_in_diagonal", "prior_base"])
def test_arrays_that_do_not_fit_are_refused(artefact, name):
    """An array of the wrong shape is refused when the model loads, not at a request."""
    arrays = {**artefact.arrays, name: artefact.arrays[name][:-1]}
    with pytest.raises(ArtefactError, match="do not fit"):
        RankingModel(Artefact(artefact.manifest, arrays, artefact.items))


def test_an_index_with_every_probe_equals_the_exact_model(artefact, model):
    """With every group scanned, an approximate index gives the same answers as the exact model."""
    approximate = RankingModel(artefact, probes=ITEMS)
    queries = [Query(ADULT, [f"item_{row}"], top_k=20) for row in range(0, 200, 7)]
    for each in (model, approximate):
        each.make_unavailable(["item_9", "item_11"])
    assert approximate.rank(queries) == model.rank(queries)
    assert approximate.measure_recall() == model.measure_recall() == 1.0


def test_an_index_with_low_recall_is_refused(artefact, tmp_path):
    """The recall is measured when the model loads and compared with the required minimum."""
    write_artefact(tmp_path / "model", name="m", arrays=artefact.arrays, items=artefact.items, training={}, metrics={})
    with ThreadPoolExecutor(1) as pool:
        assert load_model(tmp_path / "model", workers=1, pool=pool, probes=1).recall < 1
        with pytest.raises(StartError, match="INDEX_PROBES"):
            load_model(tmp_path / "model", workers=1, pool=pool, probes=1, min_recall=0.999)


def test_every_item_needs_a_row(artefact):
    """An artefact with more items than rows is refused."""
    with pytest.raises(ArtefactError, match="items"):
        RankingModel(Artefact(artefact.manifest, artefact.arrays, [*artefact.items, Item("one too many")]))
