"""Solve the ridge regressions of many rows together, which is half of an ALS epoch."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.sparse import csr_array

from topk.item_table import F32, F64, I64

BLOCK_FLOATS = 2_000_000  # regressors per block: 8 MB per worker, which stay in the last-level cache
SMALL_SYSTEM = 24  # up to this order, a batched call is faster than a LAPACK call per system


def weighted_gram(factors: F32, weights: F64 | F32) -> tuple[F32, F32]:
    """
    Return the falling eigenvalues (D,) and the eigenvectors (D, D) of sum_k weights_k f_k f_k^T.

    The largest component of each eigenvector is positive, so that its sign does not depend on LAPACK.
    """
    gram = (factors * weights[:, None].astype(np.float32)).T @ factors
    values, vectors = np.linalg.eigh(gram.astype(np.float64))
    values, vectors = values[::-1], vectors[:, ::-1]
    peak = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    return np.maximum(values, 0).astype(np.float32), (vectors * np.sign(peak)).astype(np.float32)


def solve_rows(
    ratings: csr_array, factors: F32, *, column_weights: F64 | F32, row_scale: F64, ridge: F64, pool: ThreadPoolExecutor
) -> F32:
    """
    Solve the ridge regression of every row of *ratings* on *factors*, which is half of an epoch.

    Row r solves (row_scale_r G + ridge_r I + sum_k c_rk f_k f_k^T) x = sum_k c_rk f_k, where G is the Gram matrix of
    *factors*, weighted by *column_weights*. Rows without entries get zeros.

    Args:
        ratings: (R, K) confidences c > 0.
        factors: (K, D).
        column_weights: (K,).
        row_scale: (R,).
        ridge: (R,).
        pool: Runs the blocks.
    """
    gram, basis = weighted_gram(factors, column_weights)
    rotated = factors @ basis
    out = np.zeros((ratings.shape[0], factors.shape[1]), np.float32)

    def solve(block: tuple[I64, int]) -> None:
        rows, size = block
        where = ratings.indptr[rows][:, None] + np.arange(size)
        diagonal = (row_scale[rows, None] * gram + ridge[rows, None]).astype(np.float32)
        out[rows] = ridge_solutions(rotated[ratings.indices[where]], ratings.data[where], diagonal)

    for _ in pool.map(solve, equal_size_blocks(ratings.indptr, factors.shape[1])):
        pass
    return np.asarray(out @ basis.T, np.float32)


def equal_size_blocks(indptr: NDArray[np.integer], width: int) -> Iterator[tuple[I64, int]]:
    """
    Yield rows of equal length in blocks of at most BLOCK_FLOATS regressors.

    Blocks need no padding, so the arithmetic of a row does not depend on other rows.
    """
    sizes = np.diff(indptr)
    order = np.argsort(sizes, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(sizes[order])) + 1):
        size = int(sizes[rows[0]]) if len(rows) else 0
        step = max(1, BLOCK_FLOATS // max(size * width, 1))
        if size:
            yield from ((rows[start : start + step], size) for start in range(0, len(rows), step))


def ridge_solutions(regressors: F32, confidence: F32, diagonal: F32) -> F32:
    """
    Solve (diag(a) + H^T C H) x = H^T C 1 for a stack of rows of equal length n.

    If n <= D, solve the n x n system (C^-1 + H A^-1 H^T) q = 1, x = A^-1 H^T q instead of the D x D system above.

    Args:
        regressors: (B, n, D), H.
        confidence: (B, n), C, all above 0.
        diagonal: (B, D), a, all above 0.

    Returns:
        (B, D) float32.
    """
    _, size, width = regressors.shape
    if size <= width:
        scaled = regressors / diagonal[:, None, :]
        system: F32 = np.matmul(scaled, regressors.transpose(0, 2, 1))
        system[:, np.arange(size), np.arange(size)] += 1 / confidence
        dual = solve_symmetric(system, np.ones((len(system), size), np.float32))
        return np.asarray((dual[:, None, :] @ scaled)[:, 0], np.float32)
    weighted = regressors * confidence[:, :, None]
    system = np.matmul(weighted.transpose(0, 2, 1), regressors)
    system[:, np.arange(width), np.arange(width)] += diagonal
    return solve_symmetric(system, weighted.sum(axis=1))


def solve_symmetric(systems: F32, targets: F32) -> F32:
    """
    Return the solutions (B, n) of positive definite *systems* (B, n, n).

    Small systems are solved together by LU, larger ones separately by Cholesky.
    """
    if systems.shape[1] <= SMALL_SYSTEM:
        return np.asarray(np.linalg.solve(systems, targets[..., None])[..., 0], np.float32)
    return np.stack([_cholesky_solve(*pair) for pair in zip(systems, targets, strict=True)])


def _cholesky_solve(system: F32, target: F32) -> F32:
    # The transpose is Fortran-ordered and equal to the symmetric system, so LAPACK needs no copy.
    _, solution, info = lapack.sposv(system.T, target, overwrite_a=True)
    if info:
        msg = f"normal equations are not positive definite (LAPACK info {info}); raise the ridge"
        raise np.linalg.LinAlgError(msg)
    return np.asarray(solution, np.float32)
