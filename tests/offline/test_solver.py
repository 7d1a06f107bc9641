from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.sparse import csr_array

from offline import solver
from offline.solver import equal_size_blocks, ridge_solutions, solve_rows, weighted_gram


@pytest.mark.parametrize("size", [4, 8, 9, 30, 60])
def test_both_forms_of_the_normal_equations_agree(size):
    """Both solvers agree with the textbook below, at and above the number of factors."""
    rng = np.random.default_rng(size)
    regressors = rng.standard_normal((5, size, 8)).astype(np.float32)
    confidence = (rng.random((5, size)) + 0.5).astype(np.float32)
    diagonal = (rng.random((5, 8)) + 1).astype(np.float32)
    got = ridge_solutions(regressors, confidence, diagonal)
    for row in range(5):
        h, c = regressors[row].astype(np.float64), confidence[row].astype(np.float64)
        wanted = np.linalg.solve(np.diag(diagonal[row].astype(np.float64)) + h.T * c @ h, h.T @ c)
        np.testing.assert_allclose(got[row], wanted, rtol=1e-3, atol=1e-5)


def test_solve_rows_solves_a_ridge_regression_for_each_row():
    """Rows of any length, also empty ones, agree with the textbook, and no argument changes."""
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((30, 50)) < rng.random((30, 1)), rng.random((30, 50)) + 0.5, 0.0)
    dense[7] = 0.0
    ratings = csr_array(dense.astype(np.float32))
    factors = rng.standard_normal((50, 12)).astype(np.float32)
    columns, scale, ridge = rng.random(50), rng.random(30) + 0.5, rng.random(30) + 1
    before = factors.copy()
    with ThreadPoolExecutor(2) as pool:
        got = solve_rows(ratings, factors, column_weights=columns, row_scale=scale, ridge=ridge, pool=pool)
    gram = (factors * columns[:, None]).T @ factors.astype(np.float64)
    for row in range(30):
        system = scale[row] * gram + ridge[row] * np.eye(12) + (factors * dense[row][:, None]).T @ factors
        wanted = np.linalg.solve(system, dense[row] @ factors)
        np.testing.assert_allclose(got[row], wanted, rtol=2e-3, atol=2e-4)
    assert (got[7] == 0).all()
    assert (factors == before).all()


def test_blocks_contain_every_row_once(monkeypatch):
    """Rows are grouped by length in blocks of limited size, and no row with entries is lost."""
    monkeypatch.setattr(solver, "BLOCK_FLOATS", 40)
    sizes = np.random.default_rng(0).integers(0, 5, 100)
    blocks = list(equal_size_blocks(np.concatenate(([0], np.cumsum(sizes))), 4))
    assert sorted(row for rows, _ in blocks for row in rows) == np.flatnonzero(sizes).tolist()
    assert all((sizes[rows] == size).all() and len(rows) * size * 4 <= 40 for rows, size in blocks)


def test_the_gram_basis_has_fixed_signs():
    """The decomposition restores the matrix, and its signs do not depend on LAPACK."""
    factors = np.random.default_rng(1).standard_normal((40, 6)).astype(np.float32)
    weights = np.linspace(0.1, 1, 40)
    values, vectors = weighted_gram(factors, weights)
    np.testing.assert_allclose(
        (vectors * values) @ vectors.T, (factors * weights[:, None]).T @ factors, rtol=1e-3, atol=1e-3
    )
    assert all(column[np.abs(column).argmax()] > 0 for column in vectors.T)


def test_an_indefinite_system_is_an_error():
    """A ridge that is too small raises an error that says so, instead of returning a wrong vector."""
    with pytest.raises(np.linalg.LinAlgError, match="raise the ridge"):
        solver.solve_symmetric(-np.eye(30, dtype=np.float32)[None], np.ones((1, 30), np.float32))
