"""
Rank items with a trained artefact.

Three kinds of sources score items for a user's history: factors (`folding`, `scoring`), popularity, and neighbours
(`neighbours`). The blend of their scores ranks the items (`mixing`). An artefact without a blend ranks by its factors
alone: score[u, i] = x_u . y_i.

The model holds no data per user. All sources use the history of the request, so a new interaction counts in the next
answer, and a user who is not in the training data is served like any other. A user with neither a history nor an age
gets the popular list.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from recsys.contracts.wire import Features, Model
from recsys.features import UNKNOWN_FEATURES
from recsys.ranking.artefact import Artefact, ArtefactError
from recsys.ranking.blending import Blend
from recsys.ranking.candidates import RankedBatch
from recsys.ranking.folding import FoldIn
from recsys.ranking.item_table import F32, F64, I64, ItemTable
from recsys.ranking.mixing import PROPOSALS, Asked, Mixer
from recsys.ranking.neighbours import Neighbours, Views
from recsys.ranking.prior import KNOWN_AGES, FeaturePrior
from recsys.ranking.row_lists import RowLists
from recsys.ranking.scoring import score_candidates

if TYPE_CHECKING:
    from recsys.ranking.approximate import ApproximateIndex

_MEASURED_USERS = 200
_MEASURED_HISTORY = 20


class Query(Struct, frozen=True):
    """A request for the *top_k* best items for *features* and *history*, without the items of *exclude*."""

    features: Features
    history: Sequence[str]
    top_k: int
    exclude: Sequence[str] = ()


class Ranking(Struct, frozen=True):
    """At most *top_k* item ids with their scores, best first; fewer if fewer items remain after exclusions."""

    item_ids: list[str]
    scores: list[float]


class RankingModel:
    """
    A model that ranks the whole catalogue for a batch of users.

    Args:
        artefact: A verified artefact.
        workers: Threads that share a large catalogue; the caller must limit BLAS to one thread.
        pool: Runs the workers.
        probes: Number of groups of the catalogue to scan per user (`ApproximateIndex`); 0 scans the whole catalogue.

    Attributes:
        identity: Name and version of the artefact.
        item_ids: The catalogue.

    Raises:
        ArtefactError: the artefact lacks an array, or its shapes do not fit each other.
    """

    def __init__(self, artefact: Artefact, *, workers: int = 1, pool: Executor | None = None, probes: int = 0) -> None:
        self.identity = Model(name=artefact.manifest.name, version=artefact.manifest.version)
        self.item_ids = [item.item_id for item in artefact.items]
        self._rows = {item_id: row for row, item_id in enumerate(self.item_ids)}
        self._workers, self._pool = workers, pool
        self._unavailable: I64 | None = None
        self._index: ApproximateIndex | None = None
        try:
            self._read(artefact)
        except KeyError as error:
            raise ArtefactError(f"the artefact has no array {error}") from error
        except (ValueError, TypeError, IndexError) as error:
            raise ArtefactError(f"the artefact's arrays do not fit each other: {error}") from error
        if probes:
            self._index = build_index(self._table, probes=probes)

    def _read(self, artefact: Artefact) -> None:
        arrays = artefact.arrays
        factors: F32 = arrays["item_factors"]
        self._popularity: F32 = arrays["item_popularity"]
        if not len(factors) == len(self._popularity) == len(self.item_ids):
            raise ValueError(
                f"{len(self.item_ids)} items, factors {factors.shape}, popularity {self._popularity.shape}"
            )
        strength, half_life = (float(number) for number in arrays["fold_in"])
        self._table = ItemTable.of(factors)
        # The fold-in reads the rounded vectors, so that the memory of the artefact's vectors can be freed.
        self._fold_in = FoldIn(self._table.vectors, arrays["fold_in_diagonal"], strength, half_life)
        session, purchases, engagement = (tuple(arrays[f"prior_knots_{n}"].tolist()) for n in range(3))
        self._prior = FeaturePrior((session, purchases, engagement), arrays["prior_weights"], arrays["prior_base"])
        self._popular = np.lexsort((np.arange(len(factors)), -self._popularity))
        self._mixer = self._read_mixer(artefact) if "blend_weights" in arrays else None
        # Ranking once raises an error for all other arrays that do not fit each other.
        self.rank([self.typical_query()])

    def _read_mixer(self, artefact: Artefact) -> Mixer:
        arrays = artefact.arrays
        neighbours = [
            Neighbours(
                arrays[f"neighbours_{source}_ends"],
                arrays[f"neighbours_{source}_items"],
                arrays[f"neighbours_{source}_weights"],
                half_life,
            )
            for source, half_life in enumerate(arrays["neighbours_half_lives"].tolist())
        ]
        blend = Blend(arrays["blend_lengths"], arrays["blend_weights"])
        blend.check(sources=2 + len(neighbours))
        share = self._popularity.astype(np.float64) / max(float(self._popularity.max()), 1e-9)
        views = Views.of(neighbours, items=len(self.item_ids))
        return Mixer(self._table, share, self._popular, views, blend)

    def typical_query(self) -> Query:
        """Return a query that uses every part of the model, to warm it up."""
        return Query(UNKNOWN_FEATURES, self.item_ids[:50], top_k=10)

    def measure_recall(self) -> float:
        """
        Return the share of the exact best 100 items that the index finds for random histories; 1 without an index.

        Cost: exact ranking for 200 users.
        """
        if self._index is None:
            return 1.0
        rng = np.random.default_rng(0)
        share = self._popularity.astype(np.float64) + 1e-9
        size = min(_MEASURED_HISTORY, len(share))
        histories = RowLists.of(
            [rng.choice(len(share), size, replace=False, p=share / share.sum()) for _ in range(_MEASURED_USERS)]
        )
        priors = self._prior.means([UNKNOWN_FEATURES] * _MEASURED_USERS)
        users = self._fold_in.users(histories, priors=priors).astype(np.float32)
        return self._index.measure_recall(users)

    def make_unavailable(self, item_ids: Sequence[str]) -> None:
        """Stop returning *item_ids* to any user. Items from an earlier call that are not listed become available."""
        rows = np.array(sorted(self._known(item_ids)), np.int64)
        self._unavailable = rows if rows.size else None

    def rank(self, queries: Sequence[Query]) -> list[Ranking]:
        """
        Return the best items of every query, with the same bits as for each query alone.

        Cost: see `FoldIn.users` and `score_candidates`.
        """
        histories = [self._known(query.history) for query in queries]
        folded = [
            user
            for user, (query, history) in enumerate(zip(queries, histories, strict=True))
            if history or query.features.age_group in KNOWN_AGES
        ]
        rankings = dict(zip(folded, self._rank_known(queries, histories, folded), strict=True)) if folded else {}
        return [
            rankings[user] if user in rankings else self._rank_stranger(query) for user, query in enumerate(queries)
        ]

    def _rank_known(
        self, queries: Sequence[Query], histories: Sequence[Sequence[int]], users: Sequence[int]
    ) -> list[Ranking]:
        wanted = [queries[user].top_k for user in users]
        asked = self._ask([queries[user] for user in users], [histories[user] for user in users])
        limit = min(max(wanted), len(self.item_ids))
        if self._mixer is None:
            ranked = self._score(asked, limit=limit)
        elif self._table.exact is not None and self._index is None:
            ranked = self._mixer.rank_all(asked, limit=limit)
        else:
            ranked = self._mixer.rank(asked, self._score(asked, limit=int(asked.depths.max())), limit=limit)
        cuts = [min(top_k, int(count)) for top_k, count in zip(wanted, ranked.counts, strict=True)]
        rows = zip(ranked.ids.tolist(), ranked.scores.tolist(), cuts, strict=True)
        return [Ranking([self.item_ids[row] for row in ids[:cut]], scores[:cut]) for ids, scores, cut in rows]

    def candidates(self, queries: Sequence[Query]) -> tuple[I64, I64, list[F64]]:
        """
        Return the candidates of every query: rows (N,) grouped by query, counts (U,), each source's scores (N,).

        Training uses the candidates to choose the weights of the blend.

        Raises:
            ValueError: the artefact has no blend.
        """
        if self._mixer is None:
            raise ValueError("the artefact has no blend, so its factors are its only source")
        asked = self._ask(queries, [self._known(query.history) for query in queries])
        return self._mixer.candidates(asked, self._score(asked, limit=int(asked.depths.max())))

    def _ask(self, queries: Sequence[Query], histories: Sequence[Sequence[int]]) -> Asked:
        history = RowLists.of(histories)
        exclude = history
        if any(query.exclude for query in queries):
            unwanted = zip(queries, histories, strict=True)
            exclude = RowLists.of([{*rows, *self._known(query.exclude)} for query, rows in unwanted])
        priors = self._prior.means([query.features for query in queries])
        unavailable = self._unavailable
        return Asked(
            vectors=self._fold_in.users(history, priors=priors).astype(np.float32),
            history=history,
            exclude=exclude,
            unavailable=np.empty(0, np.int64) if unavailable is None else unavailable,
            # A user's depth depends on that user's request alone, so the candidates do not depend on the batch.
            depths=np.minimum([max(query.top_k, PROPOSALS) for query in queries], len(self.item_ids)),
        )

    def _score(self, asked: Asked, *, limit: int) -> RankedBatch:
        unavailable = asked.unavailable if asked.unavailable.size else None
        if self._index is not None:
            return self._index.search(asked.vectors, limit=limit, exclude=asked.exclude, unavailable=unavailable)
        return score_candidates(
            asked.vectors,
            self._table,
            limit=limit,
            exclude=asked.exclude,
            unavailable=unavailable,
            workers=self._workers,
            pool=self._pool,
        )

    def _rank_stranger(self, query: Query) -> Ranking:
        """Return the popular list without closed items. Only as many rows are read as the answer can need."""
        closed = set(self._known(query.exclude))
        if self._unavailable is not None:
            closed.update(self._unavailable.tolist())
        rows = [row for row in self._popular[: query.top_k + len(closed)].tolist() if row not in closed][: query.top_k]
        return Ranking([self.item_ids[row] for row in rows], self._popularity[rows].tolist())

    def _known(self, item_ids: Sequence[str]) -> list[int]:
        """Return the distinct rows of *item_ids*. Unknown ids are ignored: a history may be newer than the model."""
        return list(dict.fromkeys(row for row in map(self._rows.get, item_ids) if row is not None))


def build_index(table: ItemTable, *, probes: int) -> "ApproximateIndex":
    """
    Build an approximate index over *table*.

    Raises:
        ArtefactError: FAISS is not installed.
    """
    try:
        # Only instances with an approximate index need this library.
        from recsys.ranking.approximate import ApproximateIndex  # noqa: PLC0415
    except ImportError as error:
        raise ArtefactError(
            "an approximate index needs FAISS: install the extra rank-items-approximate, or set INDEX=exact"
        ) from error
    return ApproximateIndex(table, probes=probes)
