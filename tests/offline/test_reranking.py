"""The learned ranker: it finds a declared feature that decides, and serves only if it wins."""

import msgspec
import numpy as np
import pytest

from offline.decision import TrainingDecision, decide
from offline.evaluation.ablations import vary_features
from offline.learnable import learnable
from offline.training import train
from recrank.artefact import Artefact, ArtefactError, read_artefact
from recrank.model import Query, RankingModel
from recrank.trees import MOST_LEAVES
from recsys.contracts.wire import MAX_HISTORY
from recsys.features import compute_features
from tests.offline.generated_shop import AGE, MATCH, NOISE, declare, make_shop

STYLED = declare(MATCH, NOISE)


@pytest.fixture(scope="module")
def shop():
    return make_shop(in_style=2)


@pytest.fixture(scope="module")
def choice(shop) -> TrainingDecision:
    return decide(shop.records, items=learnable(shop.items, STYLED), declaration=STYLED, shown=shop.items)


@pytest.fixture(scope="module")
def artefact(shop, choice, tmp_path_factory) -> Artefact:
    folder = tmp_path_factory.mktemp("shop")
    write(shop, choice, folder / "model")
    return read_artefact(folder / "model")


def write(shop, choice, folder):
    return train(
        shop.records,
        items=learnable(shop.items, STYLED),
        shown=shop.items,
        declaration=STYLED,
        folder=folder,
        dataset="shop",
        settings=choice.settings,
        ranker=choice.ranker,
        facts=choice.facts(),
    )


def share_in_style(model: RankingModel, shop) -> float:
    """Return the share of the first ten items that have the style of the user's attribute."""
    hits = []
    for record in shop.records[:60]:
        (favourite,) = record.user_attributes["favourite"]
        ids = [item.item_id for item in record.history[:MAX_HISTORY]]
        query = Query(compute_features(record), ids, 10, user_attributes={"favourite": [favourite]})
        hits += [shop.items[each].attributes["style"][0] == favourite for each in model.rank([query])[0].item_ids]
    return float(np.mean(hits))


def test_a_planted_feature_wins(choice, artefact, shop):
    """The ranker serves, and raises the items of the user's style, which the history does not tell."""
    assert choice.ranker is not None
    assert choice.verdict.facts["gain"] > 0.5
    assert artefact.manifest.training["ranker"]["serves"] is True
    assert share_in_style(RankingModel(artefact), shop) > 2 * share_in_style(blend_alone(artefact), shop)


def blend_alone(artefact: Artefact) -> RankingModel:
    arrays = {name: array for name, array in artefact.arrays.items() if not name.startswith("ranker_")}
    return RankingModel(Artefact(artefact.manifest, arrays, artefact.items))


def test_features_without_a_gain_leave_the_blend():
    """If no declared feature tells anything, the blend serves, and the manifest says why."""
    shop, declaration = make_shop(), declare(MATCH, NOISE, AGE)
    choice = decide(shop.records, items=learnable(shop.items, declaration), declaration=declaration, shown=shop.items)
    assert choice.ranker is None
    assert choice.facts()["ranker"]["serves"] is False
    assert "the blend serves" in list(choice.describe())[-1]


def test_the_ablation_shows_the_feature_that_decides(choice, artefact, shop):
    """Removing the planted feature costs the lists most items of the user's style; removing the noise costs none."""
    rankers = vary_features(choice.ranker, STYLED.features or {})
    whole, fits, noise = (
        share_in_style(RankingModel(artefact, ranker=ranker), shop)
        for ranker in (choice.ranker, rankers["without feature style_fits"], rankers["without feature colour_fits"])
    )
    assert fits < whole / 2
    assert noise > whole * 0.8


def test_equal_data_give_equal_bytes(choice, shop, tmp_path):
    """A second choice and training write the same artefact."""
    again = decide(shop.records, items=learnable(shop.items, STYLED), declaration=STYLED, shown=shop.items)
    versions = {write(shop, each, tmp_path / name).version for each, name in ((choice, "one"), (again, "two"))}
    assert len(versions) == 1


def test_a_batch_equals_single_queries(artefact, shop):
    """Users with all lengths of history, and strangers, get the same bits in a batch as alone."""
    model = RankingModel(artefact)
    queries = [
        Query(
            compute_features(record),
            [item.item_id for item in record.history[: number % 8]],
            1 + number % 30,
            as_of_us=record.as_of_us,
            at_us=record.as_of_us,
            user_attributes=record.user_attributes if number % 2 else {},
        )
        for number, record in enumerate(shop.records[:64])
    ]
    assert model.rank(queries) == [model.rank([query])[0] for query in queries]


def test_the_arrays_score_as_lightgbm_does(choice):
    """The bit masks reach the leaf that a walk from the root reaches, for random features."""
    import lightgbm

    from offline.boosting import _SETTINGS, _pack

    rng = np.random.default_rng(0)
    features = rng.normal(size=(6000, 5)).astype(np.float32)
    found = rng.random(6000) < 1 / (1 + np.exp(-2 * features[:, 0] * features[:, 1]))
    data = lightgbm.Dataset(features, label=found.astype(int), group=[60] * 100, params={"verbosity": -1})
    booster = lightgbm.train(_SETTINGS, data, 20)
    trees = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    ranker = _pack(trees, ("a", "b", "c", "d", "e"))
    scores = ranker.score(features, np.array([6000]))
    assert np.abs(scores - np.asarray(booster.predict(features))).max() < 20 / 2**16
    assert np.array_equal(scores[:7], np.concatenate([ranker.score(features[[n]], np.array([1])) for n in range(7)]))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ranker_features", lambda array: array + 100),
        ("ranker_masks", lambda array: array.astype(np.int32)),
        ("ranker_values", lambda array: array[:, : MOST_LEAVES - 1]),
        ("ranker_thresholds", lambda array: array[:-1]),
    ],
)
def test_a_damaged_ranker_is_refused(artefact, name, change):
    """Arrays of the ranker that do not fit each other or the columns are refused at the start."""
    arrays = {**artefact.arrays, name: change(artefact.arrays[name])}
    with pytest.raises(ArtefactError):
        RankingModel(Artefact(artefact.manifest, arrays, artefact.items))


def test_a_ranker_may_leave_short_histories_to_the_blend(artefact, shop):
    """Users with fewer items than the ranker's least get the list of the blend, and others that of the ranker."""
    facts = {**artefact.manifest.training, "ranker": {**artefact.manifest.training["ranker"], "least_history": 6}}
    manifest = msgspec.structs.replace(artefact.manifest, training=facts)
    model, blend = RankingModel(Artefact(manifest, artefact.arrays, artefact.items)), blend_alone(artefact)
    ids = [item.item_id for item in shop.records[0].history]
    short, long = (
        Query(compute_features(shop.records[0]), ids[:length], 10, at_us=0, user_attributes={"favourite": ["s1"]})
        for length in (5, 6)
    )
    assert model.rank([short, long])[0] == blend.rank([short])[0]
    assert model.rank([short, long])[1] != blend.rank([long])[0]
