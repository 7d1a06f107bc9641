"""Rules are exact: every list is compared with one made by the plainest code that follows the rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recrank.filters import ItemAttributes
from recrank.model import Query, RankingModel
from recrank.rules import Draft, Rules, make_caps
from recsys.features import UNKNOWN_FEATURES
from tests.ranking.test_filters import ITEMS, KINDS, with_kinds
from tests.ranking.test_mixture import ADULT, make_blended, make_queries
from tools.bench.batching import make_artefact

ALL = 10**6


def kind(item_id: str) -> str:
    return KINDS[int(item_id[5:]) % 100]


def make_model(rules: Rules | None = None, *, caps: int = 0, blended: bool = True) -> RankingModel:
    artefact = with_kinds(make_blended() if blended else make_artefact(items=ITEMS, dims=16))
    model = RankingModel(artefact)
    if rules:
        model.follow(rules)
    if caps:
        model.follow(Rules(caps=make_caps(ItemAttributes(artefact.items), {"category": caps})))
    return model


def capped(item_ids: list[str], *, most: int, limit: int) -> list[str]:
    """Take items in order, and skip those of a category that has *most* items already."""
    taken: list[str] = []
    for item_id in item_ids:
        if len(taken) < limit and (not kind(item_id) or sum(kind(each) == kind(item_id) for each in taken) < most):
            taken.append(item_id)
    return taken


@pytest.mark.parametrize("most", [1, 2, 5, 40])
def test_caps_equal_a_walk_down_the_whole_ranking(most):
    """A capped list is the whole ranking without the items beyond the cap; items without a category have no cap."""
    plain, model = make_model(blended=False), make_model(caps=most, blended=False)
    for query in make_queries(30):
        if not query.history:
            continue
        whole = plain.rank([Query(query.features, query.history, ALL, query.exclude)])[0].item_ids
        assert model.rank([query])[0].item_ids == capped(whole, most=most, limit=query.top_k)


def test_capped_batches_answer_what_their_queries_would():
    """Caps, also those that need a second ranking, do not make an answer depend on its batch."""
    model, queries = make_model(caps=2), make_queries(40)
    assert model.rank(queries) == [model.rank([query])[0] for query in queries]
    for ranking in model.rank(queries):
        kinds = [kind(item_id) for item_id in ranking.item_ids if kind(item_id)]
        assert max((kinds.count(each) for each in kinds), default=0) <= 2


def test_pins_come_first_unless_the_user_may_not_get_them():
    """Pinned items lead the list with the best score; those of the history, excluded or unavailable are left out."""
    model = make_model(Rules(pins=(7, 9, 11, 13)))
    model.make_unavailable(["item_13"])
    ranking = model.rank([Query(ADULT, ["item_1", "item_9"], 10, exclude=["item_11"])])[0]
    plain = make_model().rank([Query(ADULT, ["item_1", "item_9"], 10, exclude=["item_11"])])[0]
    assert ranking.item_ids[0] == "item_7"
    assert not {"item_9", "item_11", "item_13"} & set(ranking.item_ids)
    assert ranking.scores[0] == plain.scores[0]
    assert ranking.item_ids[1:] == [each for each in plain.item_ids if each != "item_7"][:9]


def test_boosts_are_added_to_the_scores_of_the_pool():
    """Boosted items move up by the boost among the best hundred; other items keep their order."""
    boosts = np.zeros(ITEMS, np.float32)
    boosts[::3] = 0.25
    query = Query(ADULT, ["item_1", "item_2"], 100)
    plain, boosted = make_model().rank([query])[0], make_model(Rules(boosts=boosts)).rank([query])[0]
    rows = [int(item_id[5:]) for item_id in plain.item_ids]
    scores = np.array(plain.scores, np.float32) + boosts[rows]
    order = sorted(range(100), key=lambda place: (-scores[place], rows[place]))
    assert boosted.item_ids == [plain.item_ids[place] for place in order]
    assert boosted.scores == scores[order].tolist()


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 30), limit=st.integers(1, 30), diversity=st.floats(0.01, 1.0), seed=st.integers(0))
def test_diversity_equals_a_search_over_all_items_for_each_place(size, limit, diversity, seed):
    """Each place goes to the item with the best weighted difference of its scaled score and its largest cosine."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((50, 4)).astype(np.float32)
    rows = rng.choice(50, size, replace=False).tolist()
    scores = np.sort(rng.random(size).astype(np.float32))[::-1].tolist()
    draft = Draft(Rules(), limit, diversity)
    draft.fill(rows, scores, vectors)
    scaled = {
        row: (score - scores[-1]) / max(scores[0] - scores[-1], 1e-12) for row, score in zip(rows, scores, strict=True)
    }

    def worth(row: int, taken: list[int]) -> float:
        one = vectors[row].astype(float)
        cosines = [
            float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)) for other in vectors[taken].astype(float)
        ]
        return float((1 - diversity) * scaled[row] - diversity * max(cosines, default=0.0))

    for place, row in enumerate(draft.rows):
        left = [each for each in rows if each not in draft.rows[:place]]
        best = max(worth(each, draft.rows[:place]) for each in left)
        assert worth(row, draft.rows[:place]) == pytest.approx(best, abs=1e-6)
    assert len(draft.rows) == min(size, limit)


def test_a_request_may_ask_for_diversity():
    """Diversity of one request changes only that request's list; the best item stays first."""
    model = make_model()
    plain, apart = Query(ADULT, ["item_1"], 10), Query(ADULT, ["item_1"], 10, diversity=0.9)
    one, other = model.rank([plain, apart])
    assert one == make_model().rank([plain])[0]
    assert other.item_ids != one.item_ids
    assert other.item_ids[0] == one.item_ids[0]
    assert other == model.rank([apart])[0]


def test_without_a_history_rules_arrange_the_popular_list():
    """A user without history and age gets popular items, capped like other lists."""
    query = Query(UNKNOWN_FEATURES, [], 30)
    whole = make_model().rank([Query(UNKNOWN_FEATURES, [], ALL)])[0].item_ids
    assert make_model(caps=3).rank([query])[0].item_ids == capped(whole, most=3, limit=30)
