import numpy as np
import pytest
from scipy.sparse import csr_array

from offline.evaluation import baselines
from offline.evaluation.baselines import (
    BASELINES,
    Baseline,
    Scorer,
    fit_bm25,
    fit_cosine,
    fit_ease,
    fit_popularity,
    fit_recent_popularity,
    fit_rules,
    fit_walk,
    list_by_baseline,
    popularity,
)
from offline.evaluation.histories import Histories
from offline.evaluation.quality import make_task
from offline.evaluation.tuning import tune
from offline.matrix import make_ratings
from recsys.records import HistoryItem, UserRecord


def histories_of(*histories: str, newest_us: int = 100) -> Histories:
    """Return histories, newest item first; the catalogue is a, b, c and so on."""
    records = [
        UserRecord(f"u{user}", "unknown", history=[HistoryItem(id_, 1.0, newest_us - n) for n, id_ in enumerate(items)])
        for user, items in enumerate(histories)
    ]
    return Histories.of(records, make_ratings(records))


@pytest.fixture
def dense() -> np.ndarray:
    rng = np.random.default_rng(0)
    table = (rng.random((40, 30)) < 0.2) * rng.integers(1, 50, (40, 30))
    table[0], table[:, 0] = 1, 1
    np.fill_diagonal(table[:30], 3)
    return table.astype(np.float64)


@pytest.fixture
def histories(dense) -> Histories:
    rows, columns = dense.nonzero()
    ends = np.concatenate(([0], np.cumsum((dense > 0).sum(axis=1))))
    return Histories(ends, columns.astype(np.int32), dense[rows, columns], np.arange(rows.size), dense.shape[1])


def scores(fitted: Scorer, histories: Histories, data: np.ndarray | None = None) -> np.ndarray:
    values = np.ones(histories.items.size) if data is None else data
    return fitted(histories.matrix(values))


def test_popularity_counts_the_users_of_an_item(dense, histories):
    """Every user gets the same scores, the number of users of each item; the recent one counts the newest share."""
    assert (scores(fit_popularity(histories, 0.0), histories) == (dense > 0).sum(axis=0)).all()
    newest = fit_recent_popularity(histories, 0.1)
    assert scores(newest, histories)[0].sum() == pytest.approx(histories.items.size * 0.1, abs=1)
    assert scores(newest, histories)[0, histories.items[-1]] > 0


@pytest.mark.parametrize("damping", [0.0, 10.0])
def test_cosine_equals_its_formula(dense, histories, damping):
    """With all neighbours kept, the score is the history times the damped cosines between columns of log1p weights."""
    logs = np.log1p(dense)
    lengths = np.linalg.norm(logs, axis=0)
    found = scores(fit_cosine(histories, damping), histories, np.log1p(histories.weights))
    np.testing.assert_allclose(found, logs @ (logs.T @ logs / (np.outer(lengths, lengths) + damping)), rtol=1e-5)


def test_bm25_equals_its_formula(dense, histories):
    """With all neighbours kept, term frequency saturates, popular items are discounted, and active users count less."""
    logs = np.log1p(dense)
    length = logs.sum(axis=0)
    rarity = np.log(30) - np.log1p((logs > 0).sum(axis=1))
    weighted = logs * 2.2 / (1.2 * (0.25 + 0.75 * length / length.mean()) + logs) * rarity[:, None]
    kept = np.maximum(weighted.T @ weighted, 0)
    found = scores(fit_bm25(histories, 0.0), histories, np.log1p(histories.weights))
    np.testing.assert_allclose(found, logs @ kept, rtol=1e-4, atol=1e-6)


def test_the_random_walk_equals_its_formula(dense, histories):
    """With all neighbours kept, the walk goes from item to user to item, over popularity**beta, and never back."""
    ones = (dense > 0).astype(np.float64)
    walk = (ones.T / ones.sum(axis=0)[:, None]) @ (ones / ones.sum(axis=1)[:, None]) * ones.sum(axis=0) ** -0.3
    np.fill_diagonal(walk, 0)
    np.testing.assert_allclose(scores(fit_walk(histories, 0.3), histories), ones @ walk, rtol=1e-5)


def test_ease_solves_its_least_squares_problem(dense, histories):
    """Each item's weights solve a ridge regression of its column on the other columns."""
    ones = (dense > 0).astype(np.float64)
    weights = fit_ease(histories, 5.0)(csr_array(np.eye(30, dtype=np.float32)))
    for item in (0, 7):
        others = np.delete(np.arange(30), item)
        x = ones[:, others]
        solved = np.linalg.solve(x.T @ x + 5 * np.eye(29), x.T @ ones[:, item])
        np.testing.assert_allclose(weights[others, item], solved, rtol=1e-3, atol=1e-5)
        assert weights[item, item] == 0


def test_rules_count_what_follows():
    """An item gets 1 / distance for every user who had it after another item, and no user counts for others."""
    histories = histories_of("cba", "ba", "ca")
    table = scores(fit_rules(histories, 0.0), histories_of("a", "b", "c"))
    assert table.tolist() == [[0, 2, 1.5], [0, 0, 1], [0, 0, 0]]
    discounted = scores(fit_rules(histories, 1.0), histories_of("a", "b", "c"))
    assert discounted.tolist() == [[0, pytest.approx(2 / 3), 0.5], [0, 0, 0.5], [0, 0, 0]]


def test_votes_fade_with_the_place_in_the_history():
    """The newest item votes with weight 1, and an item one half-life back with 1/2."""
    histories = histories_of("abcd", "ba")
    assert histories.fade(2.0).tolist() == pytest.approx([1, 2**-0.5, 0.5, 2**-1.5, 1, 2**-0.5])
    assert histories.fade(0.0).tolist() == [1] * 6


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda baseline: baseline.name)
def test_blocks_do_not_change_the_lists(baseline, histories, monkeypatch):
    """Items and users are processed in blocks to limit memory, and the block size changes no list."""

    def lists() -> np.ndarray:
        fitted = baseline.fit(histories, baseline.values[0])
        return list_by_baseline(baseline, fitted, 3.0, histories, popularity(histories))

    whole = lists()
    monkeypatch.setattr(baselines, "_BLOCK_CELLS", 200)
    assert (lists() == whole).all()


def test_only_the_nearest_neighbours_are_kept(histories, monkeypatch):
    """A user of one item gets scores for as many items as there are neighbours."""
    monkeypatch.setattr(baselines, "_WALK_NEIGHBOURS", 4)
    found = scores(fit_walk(histories, 0.3), histories)
    assert ((found > 0).sum(axis=1) <= 4 * histories.sizes).all()


def test_large_data_are_sampled_by_user(histories, monkeypatch):
    """The pairs of items are counted on a sample of whole users whose histories fit the limit."""
    monkeypatch.setattr(baselines, "_MOST_PAIRS", 400)
    sample = baselines._sampled(histories, squared=True)
    assert 0 < (sample.sizes**2).sum() <= 400
    assert baselines.sampled_share(histories) < 1
    whole = {tuple(part.items) for part in histories.blocks(1)}
    assert {tuple(part.items) for part in sample.blocks(1)} <= whole


def test_lists_leave_out_the_history_and_end_with_popular_items():
    """Items without votes follow by popularity; a list without enough items is padded with -1."""
    histories = histories_of("abc", "cb", "c")
    rules = next(baseline for baseline in BASELINES if baseline.name == "sequential rules")
    asked = histories_of("abc", "b", "c")
    lists = list_by_baseline(rules, rules.fit(histories, 0.0), 0.0, asked, popularity(histories))
    assert lists[:, :3].tolist() == [[-1, -1, -1], [0, 2, -1], [1, 0, -1]]


def test_a_baseline_that_cannot_be_fitted_says_why():
    """Rules need times, and EASE a catalogue whose inverse is feasible."""
    histories = histories_of("abc")
    reasons = {baseline.name: baseline.obstacle(histories, ordered=False) for baseline in BASELINES}
    assert "times" in reasons["sequential rules"]
    assert reasons["EASE"] == ""
    assert "3 items, at most 2" in Baseline("EASE", fit_ease, most_items=2).obstacle(histories, ordered=True)


def test_parameters_are_chosen_on_the_inner_hold_out():
    """If the newest item decides what follows, votes fade; without times they do not."""
    rng = np.random.default_rng(0)
    items = [f"i{n:02}" for n in range(40)]

    def record(user: int) -> UserRecord:
        # Ten random pairs (2n, 2n + 1): after the first item of a pair follows its second.
        pairs = rng.permutation(20)[:10].tolist()
        oldest_first = [items[2 * pair + step] for pair in pairs for step in (0, 1)]
        history = [HistoryItem(id_, 1.0, 100 - n) for n, id_ in enumerate(oldest_first[::-1])]
        return UserRecord(f"u{user}", "unknown", history=history)

    whole = [record(user) for user in range(200)]
    known = [UserRecord(each.user_id, "unknown", history=each.history[1:]) for each in whole]
    task = make_task(known, {each.user_id: [each.history[0].item_id] for each in whole})
    rules = next(baseline for baseline in BASELINES if baseline.name == "sequential rules")
    tuned = tune(rules, task, ordered=True)
    assert tuned.half_life > 0
    assert tuned.describe() == f"discount {tuned.value:g}, half-life {tuned.half_life:g}"
    assert tune(rules, task, ordered=False).half_life == 0
