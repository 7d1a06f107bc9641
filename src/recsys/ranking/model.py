"""
Ranking with a trained artefact: score[u, i] = x_u . y_i.

x_u is not looked up but folded in from the history that comes with the request (`folding`), so a new interaction
counts at once and nobody needs retraining to be served. Of whom nothing is known, neither a history nor an age, gets
the popular list.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from recsys.contracts.wire import Features, Model
from recsys.features import UNKNOWN_FEATURES
from recsys.ranking.artefact import Artefact, ArtefactError
from recsys.ranking.candidates import RankedBatch
from recsys.ranking.folding import FoldIn
from recsys.ranking.item_table import F32, I64, ItemTable
from recsys.ranking.prior import KNOWN_AGES, FeaturePrior
from recsys.ranking.row_lists import RowLists
from recsys.ranking.scoring import score_candidates

if TYPE_CHECKING:
    from recsys.ranking.approximate import ApproximateIndex

_MEASURED_USERS = 200
_MEASURED_HISTORY = 20


class Query(Struct, frozen=True):
    """Whom to rank for: features, history, how many, and what may not be returned."""

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

    Args:
        artefact: Trained and verified.
        workers: Threads that share a large catalogue; BLAS itself is to be limited to one.
        pool: Where they run.
        probes: Look only at so many groups of the catalogue per user (`ApproximateIndex`); 0 looks at all of it.

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
        self._fold_in = FoldIn(factors, arrays["fold_in_diagonal"], strength, half_life)
        session, purchases, engagement = (tuple(arrays[f"prior_knots_{n}"].tolist()) for n in range(3))
        self._prior = FeaturePrior((session, purchases, engagement), arrays["prior_weights"], arrays["prior_base"])
        self._table = ItemTable.of(factors)
        self._popular = np.lexsort((np.arange(len(factors)), -self._popularity))
        # Whatever does not fit shows when it is used once.
        self.rank([self.typical_query()])

    def typical_query(self) -> Query:
        """Return a query that uses every part of the model: something to warm up with."""
        return Query(UNKNOWN_FEATURES, self.item_ids[:50], top_k=10)

    def measure_recall(self) -> float:
        """
        Return which share of the exact best 100 the index finds, for users of random histories; 1 without an index.

        Cost: 200 users ranked exactly.
        """
        if self._index is None:
            return 1.0
        rng = np.random.default_rng(0)
        share = self._popularity.astype(np.float64) + 1e-9
        size = min(_MEASURED_HISTORY, len(share))
        histories = RowLists.of(
            [rng.choice(len(share), size, replace=False, p=share / share.sum()) for _ in range(_MEASURED_USERS)]
        )
        priors = np.tile(self._prior.mean(UNKNOWN_FEATURES), (_MEASURED_USERS, 1))
        users = self._fold_in.users(histories, priors=priors).astype(np.float32)
        return self._index.measure_recall(users)

    def make_unavailable(self, item_ids: Sequence[str]) -> None:
        """Return none of *item_ids* to anybody from now on, and again what is not among them."""
        rows = np.array(sorted(self._known(item_ids)), np.int64)
        self._unavailable = rows if rows.size else None

    def rank(self, queries: Sequence[Query]) -> list[Ranking]:
        """
        Return the best items of every query; bit for bit what each alone would get.

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
        priors = np.stack([self._prior.mean(queries[user].features) for user in users])
        history = RowLists.of([np.array(histories[user], np.int64) for user in users])
        unwanted = [{*histories[user], *self._known(queries[user].exclude)} for user in users]
        vectors = self._fold_in.users(history, priors=priors).astype(np.float32)
        exclude = RowLists.of([np.fromiter(rows, np.int64, len(rows)) for rows in unwanted])
        limit = min(max(queries[user].top_k for user in users), len(self.item_ids))
        ranked = self._score(vectors, limit=limit, exclude=exclude)
        cuts = [min(queries[user].top_k, int(count)) for user, count in zip(users, ranked.counts, strict=True)]
        rows = zip(ranked.ids.tolist(), ranked.scores.tolist(), cuts, strict=True)
        return [Ranking([self.item_ids[row] for row in ids[:cut]], scores[:cut]) for ids, scores, cut in rows]

    def _score(self, users: F32, *, limit: int, exclude: RowLists) -> RankedBatch:
        if self._index is not None:
            return self._index.search(users, limit=limit, exclude=exclude, unavailable=self._unavailable)
        return score_candidates(
            users,
            self._table,
            limit=limit,
            exclude=exclude,
            unavailable=self._unavailable,
            workers=self._workers,
            pool=self._pool,
        )

    def _rank_stranger(self, query: Query) -> Ranking:
        """The popular list: no more of it is looked at than could be excluded."""
        closed = set(self._known(query.exclude))
        if self._unavailable is not None:
            closed.update(self._unavailable.tolist())
        rows = [row for row in self._popular[: query.top_k + len(closed)].tolist() if row not in closed][: query.top_k]
        return Ranking([self.item_ids[row] for row in rows], self._popularity[rows].tolist())

    def _known(self, item_ids: Sequence[str]) -> list[int]:
        """Return the rows of those *item_ids* the artefact knows, each once; a history may be newer than a model."""
        rows = self._rows
        return list(dict.fromkeys(rows[item_id] for item_id in item_ids if item_id in rows))


def build_index(table: ItemTable, *, probes: int) -> "ApproximateIndex":
    """
    Build an approximate index over *table*.

    Raises:
        ArtefactError: its library is not installed.
    """
    try:
        # A library that only those need who ask for it.
        from recsys.ranking.approximate import ApproximateIndex  # noqa: PLC0415
    except ImportError as error:
        raise ArtefactError(
            "an approximate index wants FAISS: install the extra rank-items-approximate, or set INDEX=exact"
        ) from error
    return ApproximateIndex(table, probes=probes)
