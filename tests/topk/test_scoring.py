import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from topk import scoring, screening
from topk.item_table import ItemTable, NotFiniteError, ShapeMismatchError, grid_bits, round_to_grid
from topk.row_lists import RowLists
from topk.scoring import score_candidates

KINDS = ("normal", "whole", "mostly zero", "near ties", "cancelling", "rising", "zero users")


def make(kind, rng, users, items, dims):
    """Return vectors of a *kind* that is difficult for one of the shortcuts."""
    table = rng.standard_normal((items, dims), dtype=np.float32)
    batch = rng.standard_normal((users, dims), dtype=np.float32)
    if kind == "whole":  # many equal scores
        return np.round(batch), np.round(table * 0.6)
    if kind == "mostly zero":
        table[rng.random(items) < 0.9] = 0
    if kind == "near ties":  # differences below the error of a float32 product
        table = (table[:1] * (1 + rng.integers(-4, 5, (items, 1)) * 2.0**-22)).astype(np.float32)
    if kind == "cancelling" and dims > 1:  # scores far smaller than their error bound
        table[:, 0] = 1e5
        batch[:, 1] = -batch[:, 0]
        table[:, 1] = 1e5 + table[:, 1]
    if kind == "rising":
        table *= np.linspace(0.1, 2, items, dtype=np.float32)[:, None]
    if kind == "zero users":
        batch[::2] = 0
    return batch, table


def lists(rng, users, items, most):
    return RowLists.of([rng.integers(0, items, rng.integers(0, most + 1)) for _ in range(users)])


def full_sort(users, table, *, limit, exclude=None, unavailable=None):
    """Score by definition: exact sums, rounded once, sorted stably."""
    grid = round_to_grid(users, grid_bits(users.shape[1]))
    sums = np.einsum("ud,id->ui", grid, table.vectors.astype(np.float64))
    scores = sums.astype(np.float32) + np.float32(0)
    if exclude is not None:
        scores[exclude.owners(), exclude.rows] = -np.inf
    if unavailable is not None:
        scores[:, unavailable] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :limit]
    best = np.take_along_axis(scores, order, axis=1)
    missing = ((0, 0), (0, limit - best.shape[1]))
    best = np.pad(best, missing, constant_values=-np.inf)
    return np.where(best > -np.inf, np.pad(order, missing), -1), best


def assert_same(got, ids, scores):
    assert np.array_equal(got.ids, ids)
    assert np.array_equal(got.scores.view(np.int32), scores.view(np.int32))
    assert np.array_equal(got.counts, (ids >= 0).sum(axis=1))


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(3) as threads:
        yield threads


@pytest.fixture(params=["small blocks", "as shipped"])
def blocks(request, monkeypatch):
    """Run with the shipped block sizes, and with small ones that create many blocks and worker shares."""
    if request.param == "small blocks":
        monkeypatch.setattr(screening, "_BLOCK_SCORES", 2048)
        monkeypatch.setattr(screening, "_LEAST_ROOM", 16)
        monkeypatch.setattr(scoring, "_COST_PER_WORKER", 1)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(KINDS),
    users=st.integers(1, 33),
    items=st.integers(1, 3000),
    dims=st.sampled_from([1, 2, 5, 8, 31, 64, 65]),
    limit=st.sampled_from([1, 2, 5, 20, 100, 400]),
    dense=st.booleans(),
    workers=st.integers(1, 3),
)
def test_the_result_equals_a_full_sort(  # noqa: PLR0917, hypothesis fills them by name
    blocks, pool, seed, kind, users, items, dims, limit, dense, workers
):
    """Ids, order, scores and counts are those of a full stable sort for any data and lists."""
    rng = np.random.default_rng(seed)
    batch, vectors = make(kind, rng, users, items, dims)
    table = ItemTable.of(vectors, dense_items=10**9 if dense else 0)
    exclude = lists(rng, users, items, 1000) if seed % 2 else None
    unavailable = rng.integers(0, items, items // 3) if seed % 5 else None
    got = score_candidates(
        batch, table, limit=limit, exclude=exclude, unavailable=unavailable, workers=workers, pool=pool
    )
    assert_same(got, *full_sort(batch, table, limit=limit, exclude=exclude, unavailable=unavailable))


@pytest.mark.parametrize("dims", [8, 16, 33, 64, 65, 96, 128, 192, 256])
@pytest.mark.parametrize("items", [100, 1000, 1023, 4096, 4097, 17632])
def test_a_single_user_gets_the_same_bits(items, dims):
    """A user has the same ids and scores alone and at any position of any batch of 1 to 32."""
    rng = np.random.default_rng(items * dims)
    users = rng.standard_normal((32, dims), dtype=np.float32)
    table = ItemTable.of(rng.standard_normal((items, dims), dtype=np.float32))
    exclude = lists(rng, 32, items, 200)

    def answer(chosen):
        closed = RowLists.of([exclude.part(user) for user in chosen])
        return score_candidates(users[chosen], table, limit=20, exclude=closed)

    alone = [answer([u]) for u in range(32)]
    for size in range(1, 33):
        chosen = rng.permutation(32)[:size]
        batch = answer(chosen)
        for place, user in enumerate(chosen):
            assert np.array_equal(batch.ids[place], alone[user].ids[0])
            assert np.array_equal(batch.scores[place].view(np.int32), alone[user].scores[0].view(np.int32))


@pytest.mark.parametrize("items", [1000, 20_001])
def test_threads_do_not_change_the_bits(items, pool):
    """The result does not depend on BLAS threads, workers, or the choice between the float64 and the screened path."""
    rng = np.random.default_rng(7)
    users = rng.standard_normal((32, 64), dtype=np.float32)
    vectors = rng.standard_normal((items, 64), dtype=np.float32)
    answers = []
    for dense in (0, 10**9):
        table = ItemTable.of(vectors, dense_items=dense)
        for threads in (1, 2):
            with threadpool_limits(threads, user_api="blas"):
                answers += [score_candidates(users, table, limit=100, workers=w, pool=pool) for w in (1, 2, 3)]
    for answer in answers:
        assert_same(answer, answers[0].ids, answers[0].scores)


@pytest.mark.parametrize("dense", [0, 10**9])
def test_a_user_with_every_item_excluded_gets_none(dense):
    """A user with no items left gets none; the other users of the batch are not affected."""
    rng = np.random.default_rng(1)
    table = ItemTable.of(rng.standard_normal((300, 8), dtype=np.float32), dense_items=dense)
    users = rng.standard_normal((2, 8), dtype=np.float32)
    exclude = RowLists.of([np.arange(300), np.arange(0, 300, 2)])
    got = score_candidates(users, table, limit=200, exclude=exclude)
    assert got.counts.tolist() == [0, 150]
    assert (got.ids[0] == -1).all()
    assert (got.scores[0] == -np.inf).all()
    assert set(got.ids[1, :150].tolist()) == set(range(1, 300, 2))
    assert np.isfinite(got.scores[1, :150]).all()


@pytest.mark.parametrize("dense", [0, 10**9])
def test_equal_scores_are_ranked_by_row(dense):
    """Items with equal scores are ranked by row, also across blocks and workers."""
    table = ItemTable.of(np.ones((70_000, 4), np.float32), dense_items=dense)
    got = score_candidates(np.ones((3, 4), np.float32), table, limit=50)
    assert np.array_equal(got.ids, np.tile(np.arange(50), (3, 1)))


def test_arguments_are_not_changed():
    """The function writes to none of its arguments."""
    rng = np.random.default_rng(3)
    users = rng.standard_normal((4, 8), dtype=np.float32)
    table = ItemTable.of(rng.standard_normal((6000, 8), dtype=np.float32))
    exclude = lists(rng, 4, 6000, 100)
    unavailable = np.arange(50)
    for array in (users, table.vectors, exclude.rows, exclude.ends, unavailable):
        array.setflags(write=False)
    score_candidates(users, table, limit=10, exclude=exclude, unavailable=unavailable)


@pytest.mark.parametrize("items", [100, 5000])
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"users": np.full((1, 8), np.nan, np.float32)}, NotFiniteError),
        ({"users": np.full((1, 8), np.inf, np.float32)}, NotFiniteError),
        ({"users": np.full((1, 8), 1e30, np.float32)}, NotFiniteError),
        ({"users": np.zeros((1, 9), np.float32)}, ShapeMismatchError),
        ({"users": np.zeros((0, 8), np.float32)}, ShapeMismatchError),
        ({"limit": 0}, ShapeMismatchError),
        ({"exclude": RowLists.of([np.array([-1])])}, ShapeMismatchError),
        ({"exclude": RowLists.of([np.array([10**6])])}, ShapeMismatchError),
        ({"exclude": RowLists.of([np.array([1]), np.array([2])])}, ShapeMismatchError),
        ({"unavailable": np.array([-1])}, ShapeMismatchError),
    ],
)
def test_invalid_input_is_refused(items, change, error):
    """Invalid input raises before anything is scored, in the same way on both paths."""
    table = ItemTable.of(np.ones((items, 8), np.float32))
    arguments = {"users": np.ones((1, 8), np.float32), "limit": 5} | change
    with pytest.raises(error):
        score_candidates(arguments.pop("users"), table, **arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_scratch_memory_stays_within_32_mib(kind, pool):
    """The limit also holds when ties make every item a candidate, and with long histories."""
    rng = np.random.default_rng(4)
    users, vectors = make(kind, rng, 32, 150_000, 64)
    table = ItemTable.of(vectors)
    exclude = lists(rng, 32, 150_000, 5000)
    tracemalloc.start()
    score_candidates(users, table, limit=100, exclude=exclude, workers=2, pool=pool)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 32 * 2**20
