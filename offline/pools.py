"""
Collect the candidates of held-out users, and learn and judge the weights of the sources on them.

A pool has the candidates of some users with the scores that each source gives them: the factors, popularity, recent
popularity, then the views of the counted pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from offline.evaluation.quality import DEPTH, hold, number_columns, score_lists
from offline.evaluation.trials import Trial
from offline.pairs import View
from offline.source_weights import fit_weights
from offline.training import BlendSettings
from recrank.blend import blend
from recrank.mixture import FIXED_SOURCES, RECENT_POPULARITY
from recrank.model import Query, RankingModel
from topk.candidates import rank_candidates
from topk.item_table import F32, F64, I64

_NEAR = 0.01
_BATCH = 64


@dataclass(frozen=True)
class Sources:
    """
    The sources to learn weights for: the factors, popularity, recent popularity, and *views* of the counted pairs.

    Attributes:
        views: The neighbour sources.
        recent: Half-life of recent popularity (`recency`).
    """

    views: tuple[View, ...]
    recent: float

    def __len__(self) -> int:
        return FIXED_SOURCES + len(self.views)

    def of_present(self) -> list[int]:
        """Return the sources for users who were not away: all but recent popularity."""
        return [source for source in range(len(self)) if source != RECENT_POPULARITY]

    def all_used(self) -> BlendSettings:
        """Return a blend that uses every source."""
        return BlendSettings(
            ordered=True, views=self.views, lengths=(0,), weights=((1.0,) * len(self),), recent=self.recent
        )


@dataclass(frozen=True)
class Pool:
    """
    The candidates of some users.

    Attributes:
        rows: (N,) rows of the catalogue, grouped by user.
        counts: (U,) number of candidates of each user.
        columns: (N,) scores of each source.
        held: (U, W) items to be found.
        sizes: (U,) lengths of the histories.
        sources: The sources.
    """

    rows: I64
    counts: I64
    columns: list[F64]
    held: csr_array
    sizes: I64
    sources: Sources

    @classmethod
    def of(
        cls, model: RankingModel, queries: Sequence[Query], held: Sequence[Sequence[str]], sources: Sources
    ) -> "Pool":
        """
        Collect the candidates of *queries*.

        Args:
            model: A model with all *sources*.
            queries: One query per user.
            held: Item ids to be found, one list per query.
            sources: The sources.
        """
        with threadpool_limits(limits=1):
            parts = [model.candidates(queries[start : start + _BATCH]) for start in range(0, len(queries), _BATCH)]
        columns = number_columns(model.item_ids, held)
        return cls(
            np.concatenate([part[0] for part in parts]),
            np.concatenate([part[1] for part in parts]),
            [np.concatenate(column) for column in zip(*(part[2] for part in parts), strict=True)],
            hold(held, columns),
            np.array([len(query.history) for query in queries], np.int64),
            sources,
        )

    def among(self, least: int, below: int) -> "Pool":
        """Return the users whose histories have at least *least* and fewer than *below* items."""
        return self.only((self.sizes >= least) & (self.sizes < below))

    def only(self, users: NDArray[np.bool_]) -> "Pool":
        """Return the candidates of *users* (U,)."""
        kept = np.repeat(users, self.counts)
        return replace(
            self,
            rows=self.rows[kept],
            counts=self.counts[users],
            columns=[column[kept] for column in self.columns],
            held=self.held[users.nonzero()[0]],
            sizes=self.sizes[users],
        )

    def only_views(self, views: Sequence[View]) -> "Pool":
        """Return the same candidates without the scores of views other than *views*, which keep their order."""
        kept = [place for place, view in enumerate(self.sources.views) if view in views]
        columns = [*self.columns[:FIXED_SOURCES], *(self.columns[FIXED_SOURCES + place] for place in kept)]
        return replace(
            self,
            columns=columns,
            sources=replace(self.sources, views=tuple(self.sources.views[place] for place in kept)),
        )

    def found(self) -> NDArray[np.bool_]:
        """Return, for each candidate, whether it is held out for its user."""
        width = self.held.shape[1]
        cells = np.repeat(np.arange(self.counts.size), self.counts) * width + self.rows
        wanted = np.repeat(np.arange(self.counts.size), np.diff(self.held.indptr)) * width + self.held.indices
        return np.isin(cells, wanted)

    def lists(self, weights: F64) -> I64:
        """Return the lists (U, DEPTH) of the blend with *weights*, padded with -1."""
        used = weights.nonzero()[0]
        table: F32 = np.tile(weights[used].astype(np.float32), (self.counts.size, 1))
        scores = blend(np.stack([self.columns[source] for source in used]), table, self.counts)
        return rank_candidates(self.rows, scores, counts=self.counts, limit=DEPTH).ids


def judge(pools: Sequence[Pool], weights: F64, *, what: str) -> Trial:
    """Return the quality of the blend with *weights* for the users of all *pools*."""
    scores = [score_lists(pool.lists(weights), pool.held) for pool in pools]
    ndcg, recall = (float(np.concatenate(each).mean()) for each in zip(*scores, strict=True))
    return Trial(f"{what}: {name_weights(weights, pools[0].sources.views)}", ndcg, recall)


def learn(pools: Sequence[Pool], start: F64, sources: Sequence[int]) -> F64:
    """Learn the weights of *sources* on all *pools*, near to *start*; other sources get 0."""
    weights = np.zeros(len(start))
    chosen = list(sources)
    weights[chosen] = fit_weights(
        [np.concatenate([pool.columns[source] for pool in pools]) for source in chosen],
        np.concatenate([pool.counts for pool in pools]),
        np.concatenate([pool.found() for pool in pools]),
        start=start[chosen],
        strength=_NEAR,
    )
    return weights


def name_weights(weights: F64, views: Sequence[View]) -> str:
    """Return *weights* with the names of their sources, without weights of 0."""
    names = ["factors", "popularity", "recent popularity", *(_name_view(view) for view in views)]
    return " + ".join(f"{weight:.3g} {name}" for weight, name in zip(weights, names, strict=True) if weight)


def _name_view(view: View) -> str:
    counted = "together" if view.together else f"backward {view.backward:g}"
    return (
        f"neighbours({counted}, exponents {view.source_exponent:g} {view.target_exponent:g}, "
        f"half-life {view.half_life:g})"
    )


def complete(weights: F64) -> F64:
    """Give popularity a weight if neither it nor the factors has one, so that every list can be filled."""
    if weights[:2].any():
        return weights
    return np.where(np.arange(weights.size) == 1, 0.01, weights)
