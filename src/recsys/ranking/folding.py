"""
A user's vector from the present history, by the user's half of the training objective.

    u = argmin  sum over history c_i (1 - u.y_i)^2  +  sum over the catalogue v_i (u.y_i)^2  +  ridge |u|^2

with c_i 1, or halved every so many items back where the data showed that recent items tell more. It is pulled
towards where the user's features put it, the less the longer the history is: with n items a start

    m_n = k m,   k = strength / (strength + n),   k = 1 without a history

is what the equations are solved around. The items are kept in the basis in which their weighted Gram matrix is
diagonal, so what all users share is a diagonal P = diag(gram + ridge), and with W = diag(sqrt c) Y P^-1/2 for the items
of the history the deviation from the start solves either of two systems,

    (I + W'W)^-1 W'e  (D unknowns)  =  W'(I + WW')^-1 e  (one unknown per item),  e = sqrt c (1 - Y m_n),

whichever is smaller. Both have eigenvalues of at least 1 and are solved in float64.

Sources: Hu, Koren & Volinsky 2008, eq. 4; Rendle, Krichene, Zhang & Koren 2021, "Revisiting the performance of iALS",
eq. 7; the second form is the Woodbury (push-through) identity.
"""

from dataclasses import dataclass

import numpy as np

from recsys.ranking.item_table import F32, F64, I64, ShapeMismatchError
from recsys.ranking.row_lists import RowLists


@dataclass(frozen=True, slots=True)
class FoldIn:
    """
    What a fold-in needs of the model.

    Attributes:
        items: (I, D) float32, in the basis where the weighted Gram matrix is diagonal.
        diagonal: (D,) float32, that diagonal plus the ridge; all above 0.
        prior_strength: Items of history at which the start counts half; 0 lets it count without a history only.
        half_life: Items back at which an item counts half; 0 counts all alike.
    """

    items: F32
    diagonal: F32
    prior_strength: float
    half_life: float = 0.0

    def users(self, history: RowLists, *, priors: F64) -> F64:
        """
        Return one vector per user; row u has the bits it has in a batch of its own.

        Each user's products and solution have the shapes of that user's history alone, so BLAS and LAPACK run the
        same instructions whoever else is in the batch.

        Args:
            history: Rows of *items* per user, distinct, newest first; may be empty.
            priors: (U, D) float64, m of each user.

        Returns:
            (U, D) float64.

        Raises:
            ShapeMismatchError: the lists do not fit *priors* or the catalogue.

        Cost: per user with n items O(n*D*min(n, D) + min(n, D)**3) multiply-adds; n*D*16 bytes of scratch.
        """
        if priors.shape[1:] != self.diagonal.shape:
            raise ShapeMismatchError(f"priors {priors.shape} for {self.diagonal.size} dimensions")
        history.check(users=len(priors), items=len(self.items))
        scale = 1.0 / np.sqrt(self.diagonal.astype(np.float64))
        return np.stack([self._user(history.part(user), prior, scale) for user, prior in enumerate(priors)])

    def fade(self, items: int) -> float:
        """Return k, what is left of the prior after a history of so many *items*."""
        return 1.0 if not items else self.prior_strength / (self.prior_strength + items)

    def _user(self, rows: I64, prior: F64, scale: F64) -> F64:
        start = self.fade(rows.size) * prior
        if not rows.size:
            return start
        design: F64 = self.items[rows].astype(np.float64)
        error: F64 = 1.0 - design @ start
        design *= scale
        if self.half_life:
            root = np.exp2(np.arange(rows.size) / (-2.0 * self.half_life))
            design *= root[:, None]
            error *= root
        return start + scale * _ridge_solution(design, error)


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
