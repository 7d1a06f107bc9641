"""
Rank items with a trained artefact.

Three kinds of sources score items for a user's history: factors (`fold_in`, `factors`), popularity of all times and
recent popularity, and neighbours (`neighbours`). The blend of their scores ranks the items (`mixture`). An artefact
without a blend ranks by its factors alone: score[u, i] = x_u . y_i. A ranker gives the best items of the blend new
scores from more features (`ranker`).

The model holds no data per user. All sources use the history of the request, so a new interaction counts in the next
answer, and a user who is not in the training data is served like any other. A user without a history gets the blend that
training chose for such users. The factors alone know nothing of a user with neither a history nor an age, so without a
blend this user gets the popular list.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np

from recrank.artefact import Artefact, ArtefactError, Item
from recrank.blend import AWAY_US
from recrank.columns import make_columns
from recrank.encoder import Folding, UserEncoder
from recrank.exploration import explore
from recrank.factors import FactorSource
from recrank.filters import Bools, ItemAttributes, Shelf, Subset, join_masks
from recrank.mixture import FIXED_SOURCES, PROPOSALS, Mixer
from recrank.mixture import POPULARITY as POPULARITY_SOURCE
from recrank.phases import PHASES, Phase, Phases
from recrank.prior import KNOWN_AGES
from recrank.query import Query as Query  # noqa: PLC0414 - a model is asked and answers with these
from recrank.query import Ranking as Ranking  # noqa: PLC0414
from recrank.ranker import Ranker, Shortlist
from recrank.reasons import (
    FACTORS,
    NEIGHBOURS,
    POPULARITY,
    RULES,
    Because,
    explain,
    name_sources,
)
from recrank.request_rows import Ask, Asked
from recrank.reranking import FeatureInputs, Reranker
from recrank.rules import POOL, Draft, Rules
from recsys.contracts.wire import Condition, Model
from recsys.features import UNKNOWN_FEATURES
from topk.candidates import rank_candidates
from topk.item_table import F32, F64, I64, ItemTable
from topk.row_lists import RowLists

Ranked = tuple[list[int], list[float]]  # rows, best first, and their scores

_MEASURED_USERS = 200
_MEASURED_HISTORY = 20


class RankingModel:
    """
    A model that ranks the whole catalogue for a batch of users.

    Args:
        artefact: A verified artefact.
        workers: Threads that share a large catalogue; the caller must limit BLAS to one thread.
        pool: Runs the workers.
        probes: Number of groups of the catalogue to scan per user (`ApproximateIndex`); 0 scans the whole catalogue.
        ranker: Scores the shortlists; None for the artefact's own ranker, or for the blend if it has none.
        encoder: Encodes users; None folds their histories in.

    Attributes:
        identity: Name and version of the artefact.
        item_ids: The catalogue.
        attributes: The attributes of the items, which filters and rules may name.
        seconds: Time spent in each phase of ranking so far.

    Raises:
        ArtefactError: the artefact lacks an array, or its shapes do not fit each other.
    """

    def __init__(
        self,
        artefact: Artefact,
        *,
        workers: int = 1,
        pool: Executor | None = None,
        probes: int = 0,
        ranker: Ranker | None = None,
        encoder: UserEncoder | None = None,
    ) -> None:
        self.identity = Model(name=artefact.manifest.name, version=artefact.manifest.version)
        self.item_ids = [item.item_id for item in artefact.items]
        self._items = artefact.items
        self._rows = {item_id: row for row, item_id in enumerate(self.item_ids)}
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._rules = Rules()
        self._offered: Bools | None = None
        self._unavailable: Sequence[int] = ()
        self._mixer: Mixer | None = None
        try:
            self._features = FeatureInputs.of(artefact)
            self._reranker = Reranker.of(artefact, ranker, self._features)
            self.attributes = ItemAttributes(artefact.items, artefact.declaration)
            self._shelf = Shelf(self.attributes)
            table = ItemTable.of(artefact.arrays["item_factors"])
            self._factors = FactorSource(table, workers=workers, pool=pool, probes=probes)
            self._read(artefact, encoder)
        except KeyError as error:
            raise ArtefactError(f"the artefact has no array {error}") from error
        except (ValueError, TypeError, IndexError) as error:
            raise ArtefactError(f"the artefact's arrays or items do not fit each other: {error}") from error

    def _read(self, artefact: Artefact, encoder: UserEncoder | None) -> None:
        arrays = artefact.arrays
        vectors = self._factors.table.vectors
        self._popularity: F32 = arrays["item_popularity"]
        if not len(vectors) == len(self._popularity) == len(self.item_ids):
            raise ValueError(
                f"{len(self.item_ids)} items, factors {vectors.shape}, popularity {self._popularity.shape}"
            )
        # The fold-in reads the rounded vectors, so that the memory of the artefact's vectors can be freed.
        self._encoder = encoder or Folding.of(arrays, vectors)
        self._popular = np.lexsort((np.arange(len(vectors)), -self._popularity))
        blend = arrays.get("blend_weights")
        # Popularity alone, or no blend, makes the popular list, which needs no ranking.
        self._blends_strangers = blend is not None and bool(np.delete(blend[0], POPULARITY_SOURCE).any())
        if blend is not None or self._reranker:
            self._mixer = Mixer.of(arrays, self._factors.table, self._popular)
        self._newest_us = int(arrays["blend_newest_us"][0]) if "blend_newest_us" in arrays else 0
        # Ranking once raises an error for all other arrays that do not fit each other.
        self.rank([self.typical_query()])

    def typical_query(self) -> Query:
        """Return a query that uses every part of the model, to warm it up."""
        return Query(UNKNOWN_FEATURES, self.item_ids[:50], top_k=10)

    def measure_recall(self) -> float:
        """
        Return the share of the exact best 100 items that the index finds for random histories; 1 without an index.

        Cost: exact ranking for 200 users.
        """
        if self._factors.index is None:
            return 1.0
        rng = np.random.default_rng(0)
        share = self._popularity.astype(np.float64) + 1e-9
        size = min(_MEASURED_HISTORY, len(share))
        histories = RowLists.of(
            [rng.choice(len(share), size, replace=False, p=share / share.sum()) for _ in range(_MEASURED_USERS)]
        )
        return self._factors.index.measure_recall(
            self._encoder.vectors(histories, [UNKNOWN_FEATURES] * _MEASURED_USERS)
        )

    def make_unavailable(self, item_ids: Sequence[str]) -> None:
        """Stop returning *item_ids* to any user. Items from an earlier call that are not listed become available."""
        self._unavailable = tuple(self._known(item_ids))
        self._lay_out()

    def follow(self, rules: Rules, *, offered: Bools | None = None) -> None:
        """Arrange all lists by *rules*, and return only the rows *offered*, (I,) bool; None for all."""
        self._rules, self._offered = rules, offered
        self._lay_out()

    def _lay_out(self) -> None:
        mask = np.ones(len(self.item_ids), np.bool_) if self._offered is None else self._offered.copy()
        mask[list(self._unavailable)] = False
        self._shelf = Shelf(self.attributes, mask)

    def rank(self, queries: Sequence[Query]) -> list[Ranking]:
        """
        Return the best items of every query, with the same bits as for each query alone.

        Cost: see `FoldIn.users` and `score_candidates`.
        """
        shelf, phases = self._shelf, Phases()
        asks = [self._ask(query, shelf) for query in queries]
        lists = self._rank(asks, phases)
        if any(map(self._arranges, queries)):
            lists = [
                self._arrange(*each) if self._arranges(each[0]) else each[2]
                for each in zip(queries, asks, lists, strict=True)
            ]
            phases.end("rules")
        for phase, seconds in phases.seconds.items():
            self.seconds[phase] += seconds
        return [
            self._answer(query, ask, each, phases.seconds)
            for query, ask, each in zip(queries, asks, lists, strict=True)
        ]

    def _answer(self, query: Query, ask: Ask, ranked: Ranked, seconds: Mapping[str, float]) -> Ranking:
        rows, scores = ranked
        propensities: Sequence[float] = ()
        if query.exploration is not None:
            fixed = sum(row in self._rules.pins for row in rows[: query.top_k])
            explored = explore(scores, query.exploration, top_k=query.top_k, fixed=fixed, seed=query.seed)
            rows, scores = [rows[place] for place in explored.places], [scores[place] for place in explored.places]
            propensities = explored.propensities
        return Ranking(
            [self.item_ids[row] for row in rows],
            scores,
            seconds,
            query.include,
            self._explain(ask, rows) if "reason" in query.include else (),
            propensities,
            self.identity,
            query.about,
        )

    def _explain(self, ask: Ask, rows: Sequence[int]) -> list[Because]:
        """Return the reason for each of *rows*. Cost: the ranking of one more query, and a system of D unknowns."""
        if self._is_stranger(ask):
            return [Because(POPULARITY)] * len(rows)
        history, listed = np.array(ask.history, np.int64), np.array(rows, np.int64)
        ids = [self.item_ids[row] for row in ask.history]
        spoken = {
            FACTORS: self._encoder.speak(history, listed, features=ask.features, items=self._factors.table.vectors),
        }
        if self._mixer is None:
            return explain([FACTORS] * len(rows), spoken, ids)
        asked = self._join([ask])
        weights = self._mixer.blend.rows(asked.history.sizes(), asked.away)[0].astype(np.float64)
        spoken[NEIGHBOURS] = self._mixer.views.terms(history, listed, weights[FIXED_SOURCES:])
        found, columns = self._scored(self._mixer, ask, asked)
        largest = np.argmax(columns * weights[:, None], axis=0).tolist()
        names = name_sources(self._mixer.views.number)
        sources = {row: names[source] for row, source in zip(found.tolist(), largest, strict=True)}
        return explain([sources.get(row, RULES) for row in rows], spoken, ids)

    def _scored(self, mixer: Mixer, ask: Ask, asked: Asked) -> tuple[I64, F64]:
        """Return the items that the list of *ask* can hold, and the scores of each source."""
        if self._reranks(ask):
            shortlist = self._shortlist(mixer, asked, Phases())
            return shortlist.rows, shortlist.columns
        rows, _, columns = mixer.candidates(asked, self._factors.best(asked, limit=int(asked.depths.max())))
        return rows, columns

    def item(self, item_id: str) -> Item | None:
        """Return the item with *item_id*; None if the catalogue does not have it."""
        row = self._rows.get(item_id)
        return None if row is None else self._items[row]

    def offers(self, item_id: str) -> bool:
        """Tell whether users may get the item with *item_id*, which the catalogue has."""
        whole = self._shelf.subset(())
        return whole is None or bool(whole.mask[self._rows[item_id]])

    def _arranges(self, query: Query) -> bool:
        """Tell whether a rule may change the list of *query*."""
        return bool(query.diversity) or not self._rules.are_off

    def _ask(self, query: Query, shelf: Shelf) -> Ask:
        return Ask(
            features=query.features,
            history=self._known(query.history),
            exclude=self._known(query.exclude),
            limit=max(query.top_k, POOL) if self._arranges(query) else query.depth,
            subset=shelf.subset(query.filter),
            away=self._was_away(query),
            asker=query.asker() if self._reranker else None,
        )

    def _was_away(self, query: Query) -> bool:
        """
        Tell whether the user was away before the request.

        Without a time of the request, the training data stand for it. An instance's clock would change the answers of
        an unchanged user and model. Users who acted after the training count as present.
        """
        at_us = self._newest_us if query.at_us is None else query.at_us
        return query.as_of_us is not None and at_us - query.as_of_us >= AWAY_US

    def _arrange(self, query: Query, ask: Ask, ranked: Ranked) -> Ranked:
        """Apply the rules to a user's pool. If caps leave the list short, continue with the items that have no cap."""
        rows, scores = ranked
        draft = Draft(self._rules, query.depth, query.diversity or self._rules.diversity)
        closed = set(ask.closed())
        pins = [row for row in self._rules.pins if row not in closed and (not ask.subset or ask.subset.mask[row])]
        draft.pin(pins, max(scores, default=0.0))
        draft.fill(rows, scores, self._factors.table.vectors)
        while not draft.is_full and len(rows) == ask.limit and (full := draft.full()):
            subset = self._without(ask.subset, full)
            ask = replace(ask, exclude=[*ask.exclude, *draft.rows], subset=subset)
            ((rows, scores),) = self._rank([ask], Phases())
            draft.fill(rows, scores, self._factors.table.vectors)
        return draft.rows, draft.scores

    def _without(self, subset: Subset | None, values: Mapping[str, list[str]]) -> Subset:
        masks = [~self.attributes.mask(Condition(name, each)) for name, each in values.items()]
        return Subset(join_masks([*masks, *([subset.mask] if subset else [])]))

    def _rank(self, asks: Sequence[Ask], phases: Phases) -> list[Ranked]:
        """Return the best rows and their scores for each of *asks*; strangers get popular items."""
        folded = [ask for ask in asks if not self._is_stranger(ask)]
        parts = [[ask for ask in folded if self._reranks(ask) is reranks] for reranks in (False, True)]
        blended, reranked = (iter(self._rank_folded(part, phases) if part else ()) for part in parts)
        return [
            self._rank_stranger(ask) if self._is_stranger(ask) else next(reranked if self._reranks(ask) else blended)
            for ask in asks
        ]

    def _is_stranger(self, ask: Ask) -> bool:
        """
        Tell whether nothing that the model can use is known of a user.

        A blend may have weights for users without a history, and a ranker may know the context of the request.
        """
        return not (ask.history or self._blends_strangers or ask.features.age_group in KNOWN_AGES or self._reranks(ask))

    def _reranks(self, ask: Ask) -> bool:
        return self._reranker is not None and self._reranker.takes(ask)

    def _rank_folded(self, asks: Sequence[Ask], phases: Phases) -> list[Ranked]:
        """Return the lists of *asks*, which a ranker scores all or not at all."""
        asked = self._join(asks)
        limit = min(max(ask.limit for ask in asks), len(self.item_ids))
        last: Phase = "blend"
        if self._mixer is None:
            ranked = self._factors.best(asked, limit=limit)
            phases.end("candidates")
        elif self._reranker is not None and self._reranks(asks[0]):
            shortlist = self._shortlist(self._mixer, asked, phases)
            phases.end("blend")
            scores = self._reranker.score(shortlist, asks, asked.history)
            ranked = rank_candidates(shortlist.rows, scores, counts=shortlist.counts, limit=limit)
            last = "ranker"
        elif self._factors.scores_all:
            ranked = self._mixer.rank_all(asked, limit=limit, phases=phases)
        else:
            ranked = self._mixer.rank(
                asked, self._factors.best(asked, limit=int(asked.depths.max())), limit=limit, phases=phases
            )
        cuts = [min(ask.limit, count) for ask, count in zip(asks, ranked.counts.tolist(), strict=True)]
        rows = zip(ranked.ids.tolist(), ranked.scores.tolist(), cuts, strict=True)
        lists = [(ids[:cut], scores[:cut]) for ids, scores, cut in rows]
        phases.end(last)
        return lists

    def _shortlist(self, mixer: Mixer, asked: Asked, phases: Phases) -> Shortlist:
        if self._factors.scores_all:
            return mixer.shortlist_all(asked, phases=phases)
        return mixer.shortlist(asked, self._factors.best(asked, limit=int(asked.depths.max())), phases=phases)

    def shortlists(self, queries: Sequence[Query], names: Sequence[str]) -> tuple[I64, I64, F32]:
        """
        Return the shortlist of every query, to train a ranker on: rows (N,), counts (U,), the columns *names* (N, F).

        Raises:
            ValueError: the artefact has no blend, or a feature cannot be made.
        """
        if self._mixer is None:
            raise ValueError("the artefact has no blend, which a shortlist needs")
        asks = [replace(self._ask(query, self._shelf), asker=query.asker()) for query in queries]
        asked = self._join(asks)
        shortlist = self._shortlist(self._mixer, asked, Phases())
        features = self._features.only(names)
        return shortlist.rows, shortlist.counts, make_columns(names, shortlist, asks, asked.history, features)

    def candidates(self, queries: Sequence[Query]) -> tuple[I64, I64, F64]:
        """
        Return the candidates of every query: rows (N,) grouped by query, counts (U,), each source's scores (S, N).

        Training uses the candidates to choose the weights of the blend.

        Raises:
            ValueError: the artefact has no blend.
        """
        if self._mixer is None:
            raise ValueError("the artefact has no blend, so its factors are its only source")
        asked = self._join([self._ask(query, self._shelf) for query in queries])
        return self._mixer.candidates(asked, self._factors.best(asked, limit=int(asked.depths.max())))

    def _join(self, asks: Sequence[Ask]) -> Asked:
        history = RowLists.of([ask.history for ask in asks])
        return Asked(
            vectors=self._encoder.vectors(history, [ask.features for ask in asks]),
            history=history,
            exclude=RowLists.of([ask.closed() for ask in asks]) if any(ask.exclude for ask in asks) else history,
            subsets=[ask.subset for ask in asks],
            # A user's depth depends on that user's request alone, so the candidates do not depend on the batch.
            depths=np.minimum([max(ask.limit, PROPOSALS) for ask in asks], len(self.item_ids)),
            away=np.array([ask.away for ask in asks], np.bool_),
        )

    def _rank_stranger(self, ask: Ask) -> Ranked:
        """Return the popular list without closed items. Only as many rows are read as the answer can need."""
        closed = set(ask.exclude)
        count = ask.limit + len(closed)
        popular = self._popular[:count] if ask.subset is None else ask.subset.popular(self._popular, count)
        rows = [row for row in popular.tolist() if row not in closed][: ask.limit]
        return rows, self._popularity[rows].tolist()

    def row_of(self, item_id: str) -> int | None:
        """Return the row of *item_id*; None if the catalogue does not have it."""
        return self._rows.get(item_id)

    def _known(self, item_ids: Sequence[str]) -> list[int]:
        """Return the distinct rows of *item_ids*. Unknown ids are ignored: a history may be newer than the model."""
        rows = dict.fromkeys(map(self._rows.get, item_ids))
        return [row for row in rows if row is not None]
