import numpy as np
import pytest

from topk.approximate import ApproximateIndex
from topk.item_table import ItemTable
from topk.row_lists import RowLists
from topk.scoring import score_candidates

ITEMS = 6000


def clustered(rng, count):
    """Return vectors around a hundred centres, like real tastes."""
    centres = np.random.default_rng(9).standard_normal((100, 16))
    return (centres[rng.integers(0, 100, count)] + 0.3 * rng.standard_normal((count, 16))).astype(np.float32)


@pytest.fixture(scope="module")
def table():
    return ItemTable.of(clustered(np.random.default_rng(0), ITEMS))


@pytest.fixture(scope="module")
def users():
    return clustered(np.random.default_rng(1), 40)


def test_scanning_every_group_is_exact(table, users):
    """With as many probes as groups, the ids and scores are those of the exact kernel."""
    rng = np.random.default_rng(2)
    exclude = RowLists.of([rng.integers(0, ITEMS, rng.integers(0, 500)) for _ in users])
    unavailable = rng.integers(0, ITEMS, 300)
    index = ApproximateIndex(table, probes=ITEMS)
    wanted = score_candidates(users, table, limit=50, exclude=exclude, unavailable=unavailable)
    got = index.search(users, limit=50, exclude=exclude, unavailable=unavailable)
    assert np.array_equal(got.ids, wanted.ids)
    assert np.array_equal(got.scores, wanted.scores)


def test_recall_rises_with_the_probes(table, users):
    """The measured recall is positive, rises with the number of groups scanned, and reaches 1."""
    recalls = [ApproximateIndex(table, probes=probes).measure_recall(users) for probes in (1, 8, ITEMS)]
    assert 0 < recalls[0] < recalls[1] <= recalls[2] == 1.0
    assert recalls[1] > 0.8


def test_found_items_have_exact_scores(table, users):
    """Every item found has its exact score and order, and none is excluded."""
    exclude = RowLists.of([np.arange(0, ITEMS, 3)] * len(users))
    got = ApproximateIndex(table, probes=4).search(users, limit=20, exclude=exclude)
    exact = score_candidates(users, table, limit=ITEMS, exclude=exclude)
    for user in range(len(users)):
        kept = got.counts[user]
        place = dict(zip(exact.ids[user].tolist(), exact.scores[user].tolist(), strict=True))
        assert [place[row] for row in got.ids[user, :kept].tolist()] == got.scores[user, :kept].tolist()
        assert not (got.ids[user, :kept] % 3 == 0).any()
        assert (np.diff(got.scores[user, :kept]) <= 0).all()


def test_a_single_user_gets_the_same_bits(table, users):
    """The other users of a batch and their exclusions do not change a user's result."""
    rng = np.random.default_rng(3)
    lists = [rng.integers(0, ITEMS, size) for size in rng.integers(0, 800, len(users))]
    index = ApproximateIndex(table, probes=5)
    together = index.search(users, limit=30, exclude=RowLists.of(lists))
    for user in range(len(users)):
        alone = index.search(users[user : user + 1], limit=30, exclude=RowLists.of([lists[user]]))
        assert np.array_equal(alone.ids[0], together.ids[user])
        assert np.array_equal(alone.scores[0], together.scores[user])
