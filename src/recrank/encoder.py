"""
The port of user encoders: a history and features become a user vector in the space of the item vectors.

The best items by inner product with that vector are found by `topk`, exactly, for every encoder. `Folding` is the
project's own encoder; `Padded` lets a team's model encode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from recrank.artefact import Arrays
from recrank.fold_in import FoldIn
from recrank.prior import FeaturePrior, numbers
from recrank.reasons import speak_by_factors
from recsys.contracts.wire import Features
from recsys.features import place_of_age
from topk.item_table import F32, F64, I64
from topk.row_lists import RowLists

FEATURES = ("age_group", "log_session_seconds", "log_purchases", "engagement")
"""The columns that an encoder of your own gets: the place of the age group in `AGE_GROUPS`, and three numbers."""


class UserEncoder(Protocol):
    """Encodes users. A row of an answer depends on that user alone."""

    def vectors(self, history: RowLists, features: Sequence[Features]) -> F32:
        """Return a vector for each user, (U, D) float32; *history* has the rows of each user's items, newest first."""

    def speak(self, history: I64, rows: I64, *, features: Features, items: F32) -> F64:
        """Return how much each item of a user's *history* (H,) speaks for each of *rows* (R,) of *items*, (H, R)."""


@dataclass(frozen=True, slots=True)
class Folding:
    """
    Folds histories in, starting from the vector that the features predict.

    Attributes:
        fold_in: The solver.
        prior: The start.
    """

    fold_in: FoldIn
    prior: FeaturePrior

    @classmethod
    def of(cls, arrays: Arrays, items: F32) -> Self:
        """
        Read the encoder from the *arrays* of an artefact with the vectors *items*.

        Raises:
            KeyError, ValueError: an array is missing, or holds numbers that cannot be.
        """
        if not (arrays["fold_in_diagonal"] > 0).all():
            raise ValueError("fold_in_diagonal holds numbers that are not above 0")
        strength, half_life = (float(number) for number in arrays["fold_in"])
        session, purchases, engagement = (tuple(arrays[f"prior_knots_{n}"].tolist()) for n in range(3))
        return cls(
            FoldIn(items, arrays["fold_in_diagonal"], strength, half_life),
            FeaturePrior((session, purchases, engagement), arrays["prior_weights"], arrays["prior_base"]),
        )

    def vectors(self, history: RowLists, features: Sequence[Features]) -> F32:
        """See `FoldIn.users`."""
        return self.fold_in.users(history, priors=self.prior.means(features)).astype(np.float32)

    def speak(self, history: I64, rows: I64, *, features: Features, items: F32) -> F64:
        """See `speak_by_factors`."""
        return speak_by_factors(self.fold_in, history, rows, self.prior.means([features])[0])


class EncoderModel(Protocol):
    """A team's model."""

    def encode(self, history: I64, features: F32) -> F32:
        """
        Return a vector for each user, (U, D) float32.

        Args:
            history: (U, L) int64, rows of the items, newest first; -1 after the end of a shorter history.
            features: (U, 4) float32, the columns `FEATURES`.
        """


class EncoderError(Exception):
    """A team's encoder returned no usable vectors."""


@dataclass(frozen=True, slots=True)
class Padded:
    """
    Gives a team's model histories of one length.

    Attributes:
        model: The model.
        dimensions: D, length of a vector.
        known: Items that the model knows; rows that the catalogue added later are left out of a history.
        length: Items of a history that the model gets.
        together: Encode a batch in one call. Matrix products then have other shapes in every batch, and other last bits.
    """

    model: EncoderModel
    dimensions: int
    known: int
    length: int
    together: bool = False

    def vectors(self, history: RowLists, features: Sequence[Features]) -> F32:
        """
        Encode each user alone, so that a vector has the same bits in every batch; or all users in one call.

        Raises:
            EncoderError: the model failed, or its vectors have another shape, or are not finite.
        """
        padded = np.full((len(features), self.length), -1, np.int64)
        for user, line in enumerate(padded):
            rows = history.part(user)
            rows = rows[rows < self.known][: self.length]
            line[: rows.size] = rows
        found = self._encode(padded, np.array([_describe(each) for each in features], np.float32))
        wanted = (len(features), self.dimensions)
        if found.shape != wanted:
            raise EncoderError(f"the encoder returned the shape {found.shape}, and the item vectors need {wanted}")
        if not np.isfinite(found).all():
            raise EncoderError("the encoder returned numbers that are not finite")
        return found

    def _encode(self, history: I64, features: F32) -> F32:
        step = len(features) if self.together else 1
        starts = range(0, len(features), step)
        try:
            parts = [self.model.encode(history[at : at + step], features[at : at + step]) for at in starts]
            return np.concatenate(parts).astype(np.float32, copy=False)
        except Exception as error:
            # The code of a team may raise anything.
            raise EncoderError(f"the encoder failed: {error!r}") from error

    def speak(self, history: I64, rows: I64, *, features: Features, items: F32) -> F64:
        """Return the inner products of the items, because a model of any kind does not split its score by items."""
        voters, listed = items[history].astype(np.float64), items[rows].astype(np.float64)
        return np.asarray(voters @ listed.T, np.float64)


def _describe(features: Features) -> tuple[float, ...]:
    return (place_of_age(features.age_group), *numbers(features))
