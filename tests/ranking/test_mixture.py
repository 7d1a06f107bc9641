"""The blend of several sources, through the model that serves it."""

from functools import partial

import numpy as np
import pytest

from offline.pairs import View, count_pairs
from offline.recency import Timeline
from offline.training import BlendSettings, make_blend_arrays
from recrank.artefact import Artefact, ArtefactError
from recrank.model import Query, RankingModel
from recsys.contracts.wire import Features
from recsys.features import UNKNOWN_FEATURES
from tools.bench.batching import make_artefact
from topk.item_table import DENSE_ITEMS, ItemTable

ITEMS = 500
ADULT = Features(age_group="25-34", avg_session_duration=300.0, total_purchases=3, engagement_score=0.5)
VIEWS = (View(0.5, 0.5, 0.2, 1.0), View(0.0, 0.0, 0.0, 3.0))
WEIGHTS = ((0.5, 1.0, 0.0, 0.0, 0.0), (0.25, 0.5, 0.5, 1.0, 0.5), (1.0, 0.0, 0.25, 1.0, 0.5))
AWAY = (0.5, 0.25, 1.0, 0.0, 0.5)
NEWEST_US, DAY_US = 1_000 * 86_400_000_000, 86_400_000_000


def make_blended(weights: tuple[tuple[float, ...], ...] = WEIGHTS, *, items: int = ITEMS) -> Artefact:
    rng = np.random.default_rng(3)
    histories = [rng.choice(items, 30, replace=False).astype(np.int32) for _ in range(300)]
    pairs = count_pairs(histories, items=items, ordered=True)
    blend = BlendSettings(ordered=True, views=VIEWS, lengths=(0, 1, 5)[: len(weights)], weights=weights, away=AWAY)
    timeline = Timeline(np.concatenate(histories)[:5000], NEWEST_US, items)
    base = make_artefact(items=items, dims=16)
    arrays = {**base.arrays, **make_blend_arrays(pairs, blend, timeline=timeline)}
    return Artefact(base.manifest, arrays, base.items)


@pytest.fixture(scope="module")
def artefact() -> Artefact:
    return make_blended()


def make_queries(count: int) -> list[Query]:
    rng = np.random.default_rng(0)
    return [
        Query(
            UNKNOWN_FEATURES if number % 3 else ADULT,
            [f"item_{row}" for row in rng.integers(0, 2 * ITEMS, number % 40)],
            top_k=int(rng.integers(1, 101)),
            exclude=[f"item_{row}" for row in rng.integers(0, 2 * ITEMS, number % 7)],
            as_of_us=None if number % 5 == 0 else NEWEST_US - number % 2 * 7 * DAY_US,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("items", [ITEMS, DENSE_ITEMS + 1])
def test_a_batch_answers_what_its_queries_would(items):
    """
    Batches and single queries give the same bits for any length of history and any number of wanted items, in
    catalogues that are scored completely and in larger ones.
    """
    model = RankingModel(make_blended(items=items))
    model.make_unavailable(["item_4", "item_5"])
    queries = [*make_queries(80), Query(ADULT, ["item_1"], top_k=ITEMS)]
    assert model.rank(queries) == [model.rank([query])[0] for query in queries]
    assert model.rank(queries[::-1]) == model.rank(queries)[::-1]


def test_history_exclusions_and_the_unavailable_stay_out(artefact):
    """No source proposes an excluded or unavailable item, and a list is shorter only if too few items remain."""
    model = RankingModel(artefact)
    model.make_unavailable(["item_4", "item_5"])
    query = Query(ADULT, ["item_1", "item_2"], top_k=ITEMS, exclude=["item_3"])
    assert set(model.rank([query])[0].item_ids) == {f"item_{row}" for row in range(ITEMS) if not 1 <= row <= 5}


@pytest.mark.parametrize("weights", [WEIGHTS, (*WEIGHTS[:2], (0.5, 0.25, 0.0, 0.0, 1.0))])
def test_small_catalogues_rank_as_large_ones(monkeypatch, weights):
    """If each source proposes every item, the answer of the large catalogue's steps is that of the complete scores."""
    artefact = make_blended(weights)
    small = RankingModel(artefact)
    monkeypatch.setattr(ItemTable, "of", partial(ItemTable.of, dense_items=1))
    large = RankingModel(artefact)
    for model in (small, large):
        model.make_unavailable(["item_4", "item_5"])
    queries = [
        Query(each.features, each.history, top_k=ITEMS, exclude=each.exclude, as_of_us=each.as_of_us)
        for each in make_queries(40)
        if each.history
    ]
    for one, other in zip(small.rank(queries), large.rank(queries), strict=True):
        assert one.item_ids == other.item_ids
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-6, atol=1e-6)


def test_with_all_weight_on_the_factors_they_rank_alone():
    """A blend with one source has the order of that source."""
    blended = RankingModel(make_blended(((1.0, 0.0, 0.0, 0.0, 0.0),)))
    alone = RankingModel(make_artefact(items=ITEMS, dims=16))
    known = set(alone.item_ids)
    queries = [each for each in make_queries(60) if known & {*each.history} and each.as_of_us in {None, NEWEST_US}]
    assert queries
    for one, other in zip(blended.rank(queries), alone.rank(queries), strict=True):
        assert one.item_ids == other.item_ids


def test_the_weights_of_the_length_of_the_history_count():
    """Histories of the same length get the same row of weights; popularity alone gives the popular list."""
    model = RankingModel(
        make_blended(((0.0, 0.5, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0, 0.0), (0.0, 0.01, 0.0, 1.0, 0.0)))
    )
    popular = model.rank([Query(UNKNOWN_FEATURES, [], top_k=30)])[0].item_ids
    short = Query(UNKNOWN_FEATURES, ["item_1"], top_k=20)
    assert model.rank([short])[0].item_ids == [each for each in popular if each != "item_1"][:20]
    long = Query(UNKNOWN_FEATURES, [f"item_{row}" for row in range(5)], top_k=20)
    assert model.rank([long])[0].item_ids != [each for each in popular if each not in long.history][:20]


def test_a_user_of_whom_nothing_is_known_gets_the_blend_for_new_users():
    """Without a history and an age, the weights of length 0 rank; without a blend, the popular list is the answer."""
    recent_alone, factors_alone = (0.0, 0.0, 1.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 0.0)
    base = make_blended((recent_alone, factors_alone))
    stranger = Query(UNKNOWN_FEATURES, ["no such item"], top_k=10, exclude=["item_3"])
    recent, popular = (
        [f"item_{row}" for row in np.argsort(-base.arrays[name], kind="stable").tolist() if row != 3][:10]
        for name in ("item_recent_popularity", "item_popularity")
    )
    assert RankingModel(base).rank([stranger])[0].item_ids == recent
    unblended = {name: array for name, array in base.arrays.items() if not name.startswith("blend_")}
    assert RankingModel(Artefact(base.manifest, unblended, base.items)).rank([stranger])[0].item_ids == popular


def test_users_who_were_away_have_weights_of_their_own():
    """
    A user was away if the newest interaction is a day older than the training data, or than the time of the request.

    Users without a history or without a known time count as present.
    """
    recent_alone, factors_alone = (0.0, 0.001, 1.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 0.0)
    base = make_blended((factors_alone,))
    arrays = {**base.arrays, "blend_away": np.array(recent_alone, np.float32)}
    model = RankingModel(Artefact(base.manifest, arrays, base.items))
    order = np.argsort(-arrays["item_recent_popularity"], kind="stable")
    leaders = [f"item_{row}" for row in order.tolist() if row != 1][:10]

    def ask(as_of_us: int | None, at_us: int | None = None, history: tuple[str, ...] = ("item_1",)) -> list[str]:
        return model.rank([Query(ADULT, history, 10, as_of_us=as_of_us, at_us=at_us)])[0].item_ids

    present = ask(NEWEST_US)
    assert present != leaders
    assert ask(NEWEST_US - DAY_US) == leaders
    assert ask(NEWEST_US - DAY_US + 1) == present
    assert ask(NEWEST_US + DAY_US) == present
    assert ask(NEWEST_US, NEWEST_US + DAY_US) == leaders
    assert ask(NEWEST_US - 9 * DAY_US, NEWEST_US - 9 * DAY_US) == present
    assert ask(None) == present
    assert ask(0, history=()) == ask(None, history=())


def test_what_follows_the_newest_item_comes_first():
    """In the data, item b always follows item a, so a user whose newest item is a gets b first."""
    histories = [np.array([number, 7, 8], np.int32) for number in range(20, 120)]
    pairs = count_pairs(histories, items=ITEMS, ordered=True)
    blend = BlendSettings(ordered=True, views=VIEWS[1:], lengths=(0,), weights=((0.1, 0.0, 0.0, 1.0),))
    base = make_artefact(items=ITEMS, dims=16)
    arrays = {**base.arrays, **make_blend_arrays(pairs, blend, timeline=Timeline(np.empty(0, np.int32), 0, ITEMS))}
    model = RankingModel(Artefact(base.manifest, arrays, base.items))
    assert model.rank([Query(UNKNOWN_FEATURES, ["item_7"], top_k=1)])[0].item_ids == ["item_8"]


def test_candidates_are_for_models_with_a_blend(artefact):
    """Candidates have a score of at most 1 from each source, and a model without a blend has no candidates."""
    rows, counts, columns = RankingModel(artefact).candidates(make_queries(10))
    assert counts.sum() == rows.size
    assert [column.size for column in columns] == [rows.size] * 5
    assert all(column.max() == 1 for column in columns)
    with pytest.raises(ValueError, match="no blend"):
        RankingModel(make_artefact(items=ITEMS, dims=16)).candidates(make_queries(2))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("blend_weights", np.zeros((3, 5), np.float32)),
        ("blend_weights", -np.ones((3, 5), np.float32)),
        ("blend_weights", np.ones((3, 4), np.float32)),
        ("blend_away", np.zeros(5, np.float32)),
        ("blend_away", np.ones(4, np.float32)),
        ("item_recent_popularity", np.ones(3, np.float32)),
        ("blend_lengths", np.array([0, 5, 5])),
        ("blend_lengths", np.array([1, 5, 6])),
        ("blend_lengths", np.empty(0, np.int64)),
        ("neighbours_0_items", np.zeros(3, np.int32)),
        ("neighbours_known", np.array([-1])),
        ("neighbours_known", np.array([10**9])),
        ("neighbours_known", np.array([np.nan])),
        ("neighbours_known", np.empty(0, np.int64)),
    ],
)
def test_a_blend_that_does_not_fit_is_refused(artefact, name, array):
    """The error is raised when the model loads, not at a request."""
    with pytest.raises(ArtefactError, match="do not fit"):
        RankingModel(Artefact(artefact.manifest, {**artefact.arrays, name: array}, artefact.items))


def test_a_missing_array_is_named(artefact):
    """The error names the missing array of a neighbour source."""
    arrays = {key: array for key, array in artefact.arrays.items() if key != "neighbours_1_weights"}
    with pytest.raises(ArtefactError, match="neighbours_1_weights"):
        RankingModel(Artefact(artefact.manifest, arrays, artefact.items))
