"""
Implicit-feedback matrix factorisation by alternating least squares.

Source: Hu, Koren & Volinsky 2008, "Collaborative Filtering for Implicit Feedback Datasets".
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from tqdm import trange

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class AlsSettings:
    """Hyper-parameters: dimensions, sweeps, extra confidence of a tie, regularisation, seed."""

    factors: int = 64
    sweeps: int = 10
    alpha: float = 10.0
    reg: float = 5.0
    seed: int = 0


def factorise(weights: csr_array, settings: AlsSettings) -> tuple[F32, F32]:
    """
    Return user factors (U, D) and item factors (I, D), float32, whose product ranks the ties of *weights* high.

    Ties count as one bit each. Equal input and settings give equal factors on one machine.

    Cost: sweeps * (nnz * D^2 + (U + I) * D^3) multiply-adds.
    """
    rng = np.random.default_rng(settings.seed)
    by_item = csr_array(weights.T)
    users: F32 = np.zeros((weights.shape[0], settings.factors), np.float32)
    items: F32 = (rng.standard_normal((weights.shape[1], settings.factors)) * 0.01).astype(np.float32)
    for _ in trange(settings.sweeps, desc="training", unit="sweep", disable=None):
        users = _solve(weights, items, settings)
        items = _solve(by_item, users, settings)
    return _solve(weights, items, settings), items


def _solve(ties: csr_array, other: F32, settings: AlsSettings) -> F32:
    """Return the factors of one side, the *other* side's being fixed."""
    gram = other.T @ other + np.float32(settings.reg) * np.eye(other.shape[1], dtype=np.float32)
    solved = np.zeros((ties.shape[0], other.shape[1]), np.float32)
    for row in range(ties.shape[0]):
        tied = other[ties.indices[ties.indptr[row] : ties.indptr[row + 1]]]
        if len(tied):
            target = np.float32(1 + settings.alpha) * tied.sum(axis=0)
            solved[row] = np.linalg.solve(gram + np.float32(settings.alpha) * (tied.T @ tied), target)
    return solved
