"""Exploration: a share of the lists has one position drawn at random, and every propensity is exact."""

from collections import Counter, defaultdict

import msgspec
import numpy as np
import pytest

from recrank.exploration import RESERVE, Explored, draw, explore, softmax
from recrank.model import Query, RankingModel
from recrank.rules import Rules
from recsys.contracts.wire import Exploration
from tests.ranking.drawn_lists import enumerate_lists
from tests.ranking.test_mixture import ADULT, make_blended, make_queries
from tests.ranking.test_rules import kind, make_model

ALWAYS = Exploration(share=1.0, temperature=0.5)
HALF = Exploration(share=0.5, temperature=0.5)


@pytest.mark.parametrize(("top_k", "fixed"), [(4, 0), (4, 1), (1, 0), (2, 1), (9, 0), (20, 3)])
@pytest.mark.parametrize("exploration", [HALF, ALWAYS])
def test_each_propensity_is_the_sum_over_all_draws(top_k, fixed, exploration):
    """A logged propensity equals the probability of all draws that give the position this item."""
    scores = [3.0, 2.5, 2.4, 1.0, 0.9, 0.3, 0.0, -1.0, -1.5]
    lists = enumerate_lists(scores, exploration, top_k=top_k, fixed=fixed)
    true: defaultdict[tuple[int, int], float] = defaultdict(float)
    logged: dict[tuple[int, int], set[float]] = defaultdict(set)
    for chance, explored in lists:
        for position, (place, propensity) in enumerate(zip(explored.places, explored.propensities, strict=True)):
            true[position, place] += chance
            logged[position, place].add(round(propensity, 12))
    assert sum(chance for chance, _ in lists) == pytest.approx(1.0)
    assert all(len(each) == 1 for each in logged.values())
    assert {key: each.pop() for key, each in logged.items()} == pytest.approx(true, abs=1e-11)
    reachable = range(fixed, min(top_k, len(scores)))
    assert all((position, place) in true for position in reachable for place in range(fixed, len(scores)))


def test_the_same_exposure_gets_the_same_list():
    """A list depends on the seed alone; seeds are spread evenly over draws, positions and items."""
    assert draw("exposure-1") == draw("exposure-1") != draw("exposure-2")
    draws = np.array([draw(f"exposure-{number}") for number in range(4000)])
    assert draws.min() >= 0
    assert draws.max() < 1
    counts, _ = np.histogramdd(draws, bins=(4, 4, 4), range=[(0, 1)] * 3)
    # Chi-square with 63 degrees of freedom: 103.4 is its 99.9th percentile. The seeds are fixed.
    assert ((counts - 62.5) ** 2 / 62.5).sum() < 103.4


def test_a_low_temperature_draws_the_best_item_and_a_high_one_any():
    """The temperature ranges from the best item alone to equal chances, in any unit of the scores."""
    scores = [5.0, 3.0, 1.0]
    assert softmax(scores, temperature=0.01) == pytest.approx([1, 0, 0], abs=1e-9)
    assert softmax(scores, temperature=1e6) == pytest.approx([1 / 3] * 3, abs=1e-5)
    assert softmax([each * 1000 for each in scores], temperature=0.5) == pytest.approx(softmax(scores, temperature=0.5))
    assert softmax([2.0, 2.0], temperature=0.5) == pytest.approx([0.5, 0.5])


@pytest.fixture(scope="module")
def model() -> RankingModel:
    return RankingModel(make_blended())


def exploring_query(query: Query, seed: int, exploration: Exploration = ALWAYS) -> Query:
    return msgspec.structs.replace(query, exploration=exploration, seed=f"exposure-{seed}")


def test_an_exploring_list_differs_in_one_item_or_one_swap(model):
    """The rest of the list stays, and the item drawn is one of the list or of the reserve."""
    for seed, query in enumerate(make_queries(40)):
        ((plain,), (explored,)) = (model.rank([each]) for each in (query, exploring_query(query, seed)))
        (longer,) = model.rank([msgspec.structs.replace(query, top_k=query.top_k + RESERVE)])
        pairs = zip(plain.item_ids, explored.item_ids, strict=True)
        differing = [place for place, (one, other) in enumerate(pairs) if one != other]
        assert len(explored.item_ids) == len(plain.item_ids) == len(explored.propensities)
        assert len(differing) in {0, 1, 2}
        assert {*explored.item_ids} <= {*longer.item_ids}
        assert not plain.propensities


def test_a_share_of_the_lists_explores(model):
    """With a share, the other lists are those without exploration; their propensities are below 1, too."""
    (query,) = (each for each in make_queries(40) if each.top_k == max(q.top_k for q in make_queries(40)))
    (plain,) = model.rank([query])
    tenth = Exploration(share=0.1, temperature=1e6)
    lists = model.rank([exploring_query(query, seed, tenth) for seed in range(1000)])
    changed = sum(each.item_ids != plain.item_ids for each in lists)
    # Binomial with at most 1000 x 0.1 expected changes, standard deviation 9.5: four of them around 100 less the
    # draws that swap an item with itself.
    assert 100 * (1 - 1 / query.top_k) - 38 < changed < 138
    assert all(0 < each < 1 for ranking in lists for each in ranking.propensities)


def test_exploring_batches_answer_what_their_queries_would(model):
    """A list does not depend on the batch that it is ranked in."""
    queries = [exploring_query(query, seed) for seed, query in enumerate(make_queries(30))]
    assert model.rank(queries) == [model.rank([query])[0] for query in queries]
    assert [each.propensities for each in model.rank(queries)] == [model.rank([q])[0].propensities for q in queries]


def test_rules_hold_in_exploring_lists():
    """Pinned items keep their positions with propensity 1, and no cap is exceeded."""
    pinned = make_model(Rules(pins=[5, 9]))
    capped = make_model(caps=1)
    for seed in range(50):
        query = Query(ADULT, ["item_1"], 10, exploration=ALWAYS, seed=str(seed))
        (ranking,) = pinned.rank([query])
        assert (ranking.item_ids[:2], list(ranking.propensities[:2])) == (["item_5", "item_9"], [1.0, 1.0])
        kinds = Counter(kind(item_id) for item_id in capped.rank([query])[0].item_ids)
        assert all(count == 1 for name, count in kinds.items() if name)


def test_lists_without_a_choice_stay():
    """A list whose positions are all fixed, or that has a single item, keeps propensity 1."""
    assert explore([1.0], ALWAYS, top_k=3, fixed=0, seed="a") == Explored(range(1), [1.0])
    assert explore([1.0, 0.5], ALWAYS, top_k=1, fixed=1, seed="a") == Explored(range(1), [1.0])
    assert explore([], ALWAYS, top_k=3, fixed=0, seed="a") == Explored(range(0), [])
