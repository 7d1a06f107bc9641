import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recrank.fold_in import FoldIn
from topk.item_table import ShapeMismatchError
from topk.row_lists import RowLists

ITEMS = 1000
SIZES = (0, 1, 2, 7, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 300, 900)


def model(dims, *, strength=0.5, half_life=0.0):
    rng = np.random.default_rng(dims)
    items = (rng.standard_normal((ITEMS, dims)) * rng.gamma(2, 0.1, dims)).astype(np.float32)
    return FoldIn(items, rng.gamma(3, 1, dims).astype(np.float32), strength, half_life)


def histories(rng, sizes):
    return RowLists.of([rng.permutation(ITEMS)[:size] for size in sizes])


def normal_equations(fold, rows, prior):
    """Solve the textbook form: D unknowns, weights on both sides, around the faded prior."""
    start = prior * (fold.prior_strength / (fold.prior_strength + rows.size) if rows.size else 1.0)
    chosen = fold.items[rows].astype(np.float64)
    weights = 0.5 ** (np.arange(rows.size) / fold.half_life) if fold.half_life else np.ones(rows.size)
    system = np.diag(fold.diagonal.astype(np.float64)) + chosen.T @ (chosen * weights[:, None])
    return start + np.linalg.solve(system, chosen.T @ (weights * (1 - chosen @ start)))


@pytest.mark.parametrize("half_life", [0.0, 20.0])
@pytest.mark.parametrize("dims", [8, 64, 128, 192])
def test_the_solution_satisfies_the_normal_equations(dims, half_life):
    """Both forms of the solution, for n below and above D, agree with the textbook."""
    rng = np.random.default_rng(dims)
    fold = model(dims, half_life=half_life)
    history = histories(rng, SIZES)
    priors = rng.standard_normal((len(SIZES), dims)) * 0.1
    got = fold.users(history, priors=priors)
    for user, prior in enumerate(priors):
        wanted = normal_equations(fold, history.part(user), prior)
        np.testing.assert_allclose(got[user], wanted, rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), dims=st.sampled_from([8, 33, 64, 128]), half_life=st.sampled_from([0.0, 7.0]))
def test_a_single_user_gets_the_same_bits(seed, dims, half_life):
    """Batch size, position, neighbours and memory alignment do not change a user's result by a bit."""
    rng = np.random.default_rng(seed)
    fold = model(dims, half_life=half_life)
    sizes = rng.choice(SIZES, rng.integers(1, 33))
    history = histories(rng, sizes)
    priors = rng.standard_normal((len(sizes), dims)) * 0.1
    together = fold.users(history, priors=priors)
    ballast = [np.empty(int(size), np.uint8) for size in rng.integers(1, 10_000, 20)]
    for user in range(len(sizes)):
        alone = fold.users(RowLists.of([history.part(user)]), priors=priors[user : user + 1])
        assert np.array_equal(alone[0].view(np.int64), together[user].view(np.int64))
    assert len(ballast) == 20


def test_a_user_without_history_gets_the_prior():
    """A user without a history has the vector that the features predict."""
    prior = np.linspace(-1, 1, 16)
    assert np.array_equal(model(16).users(histories(np.random.default_rng(0), [0]), priors=prior[None])[0], prior)


def test_the_prior_fades_with_the_history():
    """Two users with different features and the same history become more similar as the history grows."""
    rng = np.random.default_rng(1)
    fold = model(16, strength=1.0)
    far = np.stack([np.full(16, 0.5), np.full(16, -0.5)])
    gaps = []
    for size in (0, 1, 4, 16, 64):
        rows = rng.permutation(ITEMS)[:size]
        first, second = fold.users(RowLists.of([rows, rows]), priors=far)
        gaps.append(np.abs(first - second).max())
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.05 * gaps[0]


def test_a_new_interaction_raises_the_score_of_its_item():
    """An item that is added to the history scores higher than before."""
    fold = model(32)
    rows = np.random.default_rng(5).permutation(ITEMS)[:21]
    before, after = fold.users(RowLists.of([rows[1:], rows]), priors=np.zeros((2, 32)))
    assert fold.items[rows[0]] @ after > fold.items[rows[0]] @ before


@pytest.mark.parametrize(
    ("history", "priors"),
    [
        (RowLists.of([np.array([1])]), np.zeros((1, 9))),
        (RowLists.of([np.array([1])]), np.zeros((2, 8))),
        (RowLists.of([np.array([ITEMS])]), np.zeros((1, 8))),
        (RowLists.of([np.array([-1])]), np.zeros((1, 8))),
    ],
)
def test_inputs_that_do_not_fit_are_refused(history, priors):
    """Priors of another dimension or batch size, and unknown rows, raise ShapeMismatchError."""
    with pytest.raises(ShapeMismatchError):
        model(8).users(history, priors=priors)
