"""
Ranking with a trained artefact.

A user's vector is not looked up but folded in: it is solved for from the history that comes with the request, so a
new interaction counts at once and a user trained on yesterday needs no retraining today.

    u = argmin  sum over all items of c_i (p_i - u.y_i)^2  +  lambda |u - W f|^2

with p and c 1 and 1 + alpha for items of the history, 0 and 1 for others. W f, the vector that the user's features
suggest, is where u stays without a history. Source: Hu, Koren & Volinsky 2008, eq. 4, with a prior mean.
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from recsys.contracts.wire import Features, Model
from recsys.features import NOBODY
from recsys.ranking.artefact import Artefact, ArtefactError
from recsys.ranking.encoding import ENCODED_WIDTH, encode_features

F32 = NDArray[np.float32]


class Query(Struct, frozen=True):
    """Whom to rank for: features, history (newest first), how many, and what may not be returned."""

    features: Features
    history: Sequence[str]
    top_k: int
    exclude: Sequence[str] = ()


class Ranking(Struct, frozen=True):
    """Item ids and their scores, best first; as many as were asked for, or as many as are left."""

    item_ids: list[str]
    scores: list[float]


class RankingModel:
    """
    Scores the whole catalogue for a batch of users.

    Raises:
        ArtefactError: the artefact lacks an array or its shapes do not fit each other.
    """

    def __init__(self, artefact: Artefact) -> None:
        self.identity = Model(name=artefact.manifest.name, version=artefact.manifest.version)
        self.item_ids = [item.item_id for item in artefact.items]
        self._rows = {item_id: row for row, item_id in enumerate(self.item_ids)}
        try:
            self._factors: F32 = artefact.arrays["item_factors"]
            self._popularity: F32 = artefact.arrays["item_popularity"]
            self._prior: F32 = artefact.arrays["feature_prior"]
            self._alpha, self._reg = (float(number) for number in artefact.arrays["fold_in"])
        except KeyError as error:
            raise ArtefactError(f"the artefact has no array {error}") from error
        count, rank = len(self.item_ids), self._factors.shape[1]
        shapes = (self._factors.shape, self._popularity.shape, self._prior.shape)
        if shapes != ((count, rank), (count,), (ENCODED_WIDTH, rank)):
            raise ArtefactError(f"{count} items, but arrays of shapes {shapes}")
        self._gram = self._factors.T @ self._factors + np.float32(self._reg) * np.eye(rank, dtype=np.float32)

    def typical_query(self) -> Query:
        """Return a query that uses every part of the model: something to warm up with."""
        return Query(NOBODY, self.item_ids[:50], top_k=10)

    def rank(self, queries: Sequence[Query]) -> list[Ranking]:
        """Return the best items of every query; row for row what each alone would get."""
        priors = encode_features([query.features for query in queries]) @ self._prior
        return [self._rank_one(query, prior) for query, prior in zip(queries, priors, strict=True)]

    def _rank_one(self, query: Query, prior: F32) -> Ranking:
        seen = self._known(query.history)
        scores = self._factors @ self._fold_in(seen, prior) if len(seen) else self._popularity.copy()
        scores[seen] = scores[self._known(query.exclude)] = -np.inf
        limit = min(query.top_k, len(scores))
        best = np.lexsort((np.arange(len(scores)), -scores))[:limit]
        best = best[np.isfinite(scores[best])]
        return Ranking([self.item_ids[row] for row in best], scores[best].tolist())

    def _fold_in(self, seen: NDArray[np.intp], prior: F32) -> F32:
        history = self._factors[seen]
        gram = self._gram + self._alpha * (history.T @ history)
        target = (1 + self._alpha) * history.sum(axis=0) + self._reg * prior
        return np.linalg.solve(gram, target).astype(np.float32)

    def _known(self, item_ids: Sequence[str]) -> NDArray[np.intp]:
        """Return the rows of those *item_ids* the artefact knows; the catalogue may be older than the history."""
        rows = self._rows
        return np.array([rows[item_id] for item_id in item_ids if item_id in rows], np.intp)
