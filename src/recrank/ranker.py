"""
The port of rankers: a ranker gives the best items of the blend new scores, from named features.

The blend first cuts the catalogue to a shortlist per user, at least `SHORTLIST` items. The ranker gets a matrix with a row
for each item of each shortlist, and the items are sorted by its scores. `recrank.mixture` makes the shortlist, and
`recrank.columns` the matrix.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from topk.candidates import RankedBatch
from topk.item_table import F32, F64, I64

# Items of a shortlist; a request for more items gets a longer one.
SHORTLIST = 200


class Ranker(Protocol):
    """
    Scores the candidates of a batch of users.

    A score may depend only on the features of the same user's candidates, so that a batch answers with the same bits as
    each request alone.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the matrix that `score` gets, in this order."""

    def score(self, features: F32, counts: I64) -> F32:
        """
        Return a finite score (N,) for each candidate; higher is better.

        Args:
            features: (N, F) float32, the candidates' rows, grouped by user. Each user's best item of the blend is first.
            counts: (U,) int64, number of candidates of each user.
        """


@dataclass(frozen=True, slots=True)
class Shortlist:
    """
    The best items of the blend for each user of a batch, grouped by user, best first.

    Attributes:
        rows: (N,) rows of the catalogue.
        counts: (U,) number of items of each user.
        scores: (N,) scores of the blend.
        columns: (S, N) normalised scores of each source.
    """

    rows: I64
    counts: I64
    scores: F32
    columns: F64

    def owners(self) -> I64:
        """Return the user of each item, (N,) int64."""
        return np.repeat(np.arange(self.counts.size), self.counts)


def cut(ranked: RankedBatch, depths: I64) -> tuple[I64, I64, I64, F32]:
    """Return the owners, rows, counts and scores of each user's first *depths* (U,) items of *ranked*."""
    counts = np.minimum(ranked.counts, depths)
    kept = np.arange(ranked.ids.shape[1]) < counts[:, None]
    return np.repeat(np.arange(counts.size), counts), ranked.ids[kept], counts, ranked.scores[kept]
