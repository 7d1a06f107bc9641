"""
Fold a history into a user vector: solve the user's half of the training objective for the items of the request.

    u = argmin  sum over history c_i (1 - u.y_i)^2  +  sum over the catalogue v_i (u.y_i)^2  +  ridge |u|^2

The weights c_i are 1. If training found that recent items are more informative, the weights halve with every
*half_life* items back in the history.

The ridge pulls the vector towards a start m_n instead of 0. The start comes from the prior m of the user's features
and counts less the longer the history is. With n items,

    m_n = k m,   k = strength / (strength + n),   k = 1 without a history

The items are kept in the basis in which their weighted Gram matrix is diagonal, so all users share the diagonal
P = diag(gram + ridge). With W = diag(sqrt c) Y P^-1/2 for the items of the history, the deviation from the start
solves two equivalent systems:

    (I + W'W)^-1 W'e  (D unknowns)  =  W'(I + WW')^-1 e  (one unknown per item),  e = sqrt c (1 - Y m_n)

The smaller system is solved, in float64. All eigenvalues of both are at least 1.

Sources: Hu, Koren & Volinsky 2008, eq. 4; Rendle, Krichene, Zhang & Koren 2021, "Revisiting the performance of iALS",
eq. 7; the second form is the Woodbury (push-through) identity.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from topk.item_table import F32, F64, I64, ShapeMismatchError
from topk.row_lists import RowLists


@dataclass(frozen=True)
class FoldIn:
    """
    The part of the model that folds histories into user vectors.

    Attributes:
        items: (I, D) float32, in the basis where the weighted Gram matrix is diagonal.
        diagonal: (D,) float32, that diagonal plus the ridge; all above 0.
        prior_strength: Length of history at which the start counts half; with 0, it counts only without a history.
        half_life: Places back in the history at which an item counts half; with 0, all items count the same.
    """

    items: F32
    diagonal: F32
    prior_strength: float
    half_life: float = 0.0

    def users(self, history: RowLists, *, priors: F64) -> F64:
        """
        Return one vector per user; row u has the same bits as in a batch that holds only user u.

        The shapes of a user's products and solution depend on that user's history alone, so BLAS and LAPACK run the
        same instructions in every batch.

        Args:
            history: Rows of *items* per user, distinct, newest first; may be empty.
            priors: (U, D) float64, the prior m of each user.

        Returns:
            (U, D) float64.

        Raises:
            ShapeMismatchError: the lists do not fit *priors* or the catalogue.

        Cost: per user with n items O(n*D*min(n, D) + min(n, D)**3) multiply-adds; n*D*16 bytes of scratch.
        """
        if priors.shape[1:] != self.diagonal.shape:
            raise ShapeMismatchError(f"priors {priors.shape} for {self.diagonal.size} dimensions")
        history.check(users=len(priors), items=len(self.items))
        ends = history.ends.tolist()
        folded = np.empty(priors.shape, np.float64)
        for user, prior in enumerate(priors):
            folded[user] = self._user(history.rows[ends[user] : ends[user + 1]], prior)
        return folded

    def fade(self, items: int) -> float:
        """Return k, the weight of the prior after a history of *items* items."""
        return 1.0 if not items else self.prior_strength / (self.prior_strength + items)

    @cached_property
    def _scale(self) -> F64:
        """P^-1/2, (D,)."""
        return np.asarray(1.0 / np.sqrt(self.diagonal.astype(np.float64)), np.float64)

    def _user(self, rows: I64, prior: F64) -> F64:
        start = self.fade(rows.size) * prior
        if not rows.size:
            return start
        design: F64 = self.items[rows].astype(np.float64)
        error: F64 = 1.0 - design @ start
        design *= self._scale
        if self.half_life:
            root = np.exp2(np.arange(rows.size) / (-2.0 * self.half_life))
            design *= root[:, None]
            error *= root
        return start + self._scale * _ridge_solution(design, error)


def _ridge_solution(design: F64, error: F64) -> F64:
    """Minimise |error - design v|^2 + |v|^2 by the smaller of the two systems."""
    rows, dims = design.shape
    if rows < dims:
        system = design @ design.T
        system.flat[:: rows + 1] += 1.0
        dual: F64 = np.linalg.solve(system, error) @ design
        return dual
    system = design.T @ design
    system.flat[:: dims + 1] += 1.0
    primal: F64 = np.linalg.solve(system, design.T @ error).astype(np.float64, copy=False)
    return primal
