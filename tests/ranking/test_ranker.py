"""The port of rankers, through the model that serves it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from recrank.artefact import Artefact, ArtefactError
from recrank.model import Query, RankingModel
from recrank.ranker import SHORTLIST
from recsys.features import UNKNOWN_FEATURES
from tests.ranking.test_mixture import ADULT, ITEMS, make_blended, make_queries
from topk.item_table import DENSE_ITEMS, F32, I64

BUILT_IN = (
    "blend", "factors", "popularity", "recent_popularity", "neighbours_1", "neighbours_2", "history_length",
)  # fmt: skip


@dataclass(frozen=True)
class Weighted:
    """Scores by a weighted sum of its columns."""

    names: tuple[str, ...] = ("blend",)
    weights: tuple[float, ...] = (1.0,)

    def score(self, features: F32, counts: I64) -> F32:
        assert features.dtype == np.float32
        assert features.shape == (counts.sum(), len(self.names))
        total = np.zeros(len(features), np.float32)
        for place, weight in enumerate(self.weights):
            total += np.float32(weight) * features[:, place]
        return total


@pytest.mark.parametrize("items", [ITEMS, DENSE_ITEMS + 1])
def test_a_ranker_that_returns_the_blend_keeps_its_order(items):
    """The shortlist is the blend's list, so a ranker that scores by the blend answers as the model without a ranker."""
    artefact = make_blended(((0.25, 0.5, 0.5, 1.0, 0.5),), items=items)
    queries = [Query(ADULT, query.history, query.top_k, query.exclude) for query in make_queries(60)]
    plain, reranked = (RankingModel(artefact, ranker=ranker).rank(queries) for ranker in (None, Weighted()))
    for one, other in zip(plain, reranked, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-6, atol=1e-9)
        assert one.item_ids[0] == other.item_ids[0]


@pytest.mark.parametrize("items", [ITEMS, DENSE_ITEMS + 1])
def test_a_batch_with_a_ranker_answers_what_its_queries_would(items):
    """Every column has the same bits in a batch as alone, for users with and without history, and any list length."""
    ranker = Weighted(BUILT_IN, (0.3, 1.0, -0.7, 0.2, 0.9, 0.4, 0.001))
    model = RankingModel(make_blended(items=items), ranker=ranker)
    model.make_unavailable(["item_4", "item_5"])
    queries = [*make_queries(60), Query(ADULT, ["item_1"], top_k=ITEMS), Query(UNKNOWN_FEATURES, [], top_k=5)]
    assert model.rank(queries) == [model.rank([query])[0] for query in queries]


def test_columns_hold_what_their_names_say():
    """The popularity of an item is its share of the largest, and the length of a history counts known items."""
    artefact = make_blended()
    popularity = artefact.arrays["item_popularity"]
    query = Query(ADULT, ["item_1", "item_2", "no such item"], top_k=ITEMS)

    def scores(name: str) -> dict[str, float]:
        ranking = RankingModel(artefact, ranker=Weighted((name,), (1.0,))).rank([query])[0]
        return dict(zip(ranking.item_ids, ranking.scores, strict=True))

    expected = popularity / popularity.max()
    for item_id, score in scores("popularity").items():
        assert score == pytest.approx(float(expected[int(item_id.removeprefix("item_"))]))
    assert set(scores("history_length").values()) == {2.0}
    for name in ("factors", "neighbours_1", "neighbours_2"):
        assert max(scores(name).values()) == 1.0


def test_a_ranker_sees_a_shortlist_and_not_the_catalogue():
    """A ranker that turns the blend around puts the last item of the shortlist first; a longer list has a longer one."""
    model, turned = (RankingModel(make_blended(), ranker=Weighted(("blend",), (sign,))) for sign in (1.0, -1.0))
    first = Query(ADULT, ["item_1", "item_2", "item_3"], top_k=SHORTLIST)
    ahead = model.rank([first])[0].item_ids
    assert set(turned.rank([first])[0].item_ids) == set(ahead)
    assert turned.rank([replace_top_k(first, 1)])[0].item_ids == turned.rank([first])[0].item_ids[:1]
    assert len(turned.rank([replace_top_k(first, 300)])[0].item_ids) == 300


def replace_top_k(query: Query, top_k: int) -> Query:
    return Query(query.features, query.history, top_k=top_k)


def test_excluded_and_filtered_items_reach_no_ranker():
    """The history, excluded items and unavailable items are not on a shortlist."""
    model = RankingModel(make_blended(), ranker=Weighted(("popularity",), (1.0,)))
    model.make_unavailable(["item_4", "item_5"])
    query = Query(ADULT, ["item_1", "item_2"], top_k=ITEMS, exclude=["item_3"])
    assert set(model.rank([query])[0].item_ids) == {f"item_{row}" for row in range(ITEMS) if not 1 <= row <= 5}


@pytest.mark.parametrize("items", [ITEMS, DENSE_ITEMS + 1])
def test_factors_alone_can_have_a_ranker(items):
    """An artefact without a blend gives its ranker the factors' best items."""
    blended = make_blended(items=items)
    arrays = {
        name: array for name, array in blended.arrays.items() if not name.startswith(("blend", "neigh", "item_recent"))
    }
    artefact = Artefact(blended.manifest, arrays, blended.items)
    query = Query(ADULT, ["item_1", "item_2"], top_k=20)
    plain, reranked = (RankingModel(artefact, ranker=ranker).rank([query])[0] for ranker in (None, Weighted()))
    assert plain.item_ids == reranked.item_ids


def test_reasons_name_sources_for_all_items_of_a_shortlist():
    """A ranker may raise any item of the shortlist, and each has a source as its reason."""
    model = RankingModel(make_blended(), ranker=Weighted(("blend",), (-1.0,)))
    query = Query(ADULT, ["item_1", "item_2"], top_k=50, include=["reason"])
    assert {reason.source for reason in model.rank([query])[0].reasons} <= {"factors", "popularity", "neighbours"}


def test_the_time_of_the_ranker_is_a_phase():
    """The receipt of a request shows the ranker apart from the sources and the blend."""
    model = RankingModel(make_blended(), ranker=Weighted())
    assert set(model.rank([Query(ADULT, ["item_1"], top_k=5)])[0].seconds) == {"candidates", "blend", "ranker"}
    assert model.seconds["ranker"] > 0


def test_an_unknown_column_is_refused():
    """A ranker that reads a column that the model does not have is named at the start."""
    with pytest.raises(ArtefactError, match="reads columns that the model does not have: price"):
        RankingModel(make_blended(), ranker=replace(Weighted(), names=("price",)))
