"""
Choose the sources and their weights by validation inside the training data.

Two hold-outs validate the choices:

    ahead       a fifth of each user's items: the newest ones, or random ones if times are missing
    newcomers   some users completely: their first 0, 1, 2, 5 or 10 items are known, and the next 20 are to be found

1. The settings of the factors: the half-life of the history, then the exponent of the item ridge. The measure is the
   mean of NDCG@10 and Recall@20, each relative to the first trial.
2. The strength of the items' attributes, if the items have any (`describing`).
3. The weights of factors, popularity and the views of the counted pairs, learned on the first hold-out (`weighing`).
4. The weights for each length of short histories, learned on users with histories of that length. If such users are
   few, the weights are also learned and judged on newcomers.
5. The trust in predictions for new items, if the catalogue has any (`trusting`).

Weights that gain less than `LEAST_GAIN` over the factors alone are not used; the factors then rank alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from offline.als import AlsSettings
from offline.describing import Arrays, AttributeSettings, find_new
from offline.evaluation.contenders import list_by_model
from offline.evaluation.holdout import Holdout, split_records
from offline.evaluation.quality import DEPTH, Task, hold, make_task
from offline.evaluation.trials import Trial, unwritten
from offline.matrix import Ratings, list_columns, make_ratings
from offline.pairs import Pairs, View, count_pairs
from offline.training import (
    BlendSettings,
    ModelSettings,
    add_attributes,
    fit_arrays,
    make_blend_arrays,
    suggest,
)
from offline.trusting import choose_trust
from offline.weighing import fit_weights, scaled
from recsys.contracts.wire import MAX_HISTORY
from recsys.features import UNKNOWN_FEATURES, compute_features
from recsys.ranking.artefact import Item
from recsys.ranking.blending import blend
from recsys.ranking.model import Query, RankingModel
from recsys.records import UserRecord
from topk.candidates import rank_candidates
from topk.item_table import F32, F64, I64

LEAST_GAIN = 0.01
HALF_LIVES = (0.0, 20.0, 8.0, 5.0, 3.0, 2.0)
FREQUENCY_EXPONENTS = (0.8, 0.0)
STRENGTHS = (2.0, 5.0)
# The first view finds items that follow the newest item, the second one items that go with the last few.
ORDERED_VIEWS = (View(0.0, 0.5, 0.2, 1.0), View(0.5, 0.5, 0.5, 3.0))
UNORDERED_VIEWS = (View(0.0, 0.5, 0.5, 0.0),)
_NEAR = 0.01

# Least length of each group of short histories, and the number of known items of the newcomers that represent it.
LENGTHS = {0: 0, 1: 1, 2: 2, 4: 5, 8: 10}
_LONG = 16
_FEWEST_USERS, _MOST_USERS = 50, 1000
_ENOUGH_USERS = 300
_MOST_TIES = 1_000_000
_NEWCOMERS = 0.2
_SEED = 100
_BATCH = 64


@dataclass(frozen=True)
class Choice:
    """
    The chosen settings and the trials behind them.

    Attributes:
        settings: The settings to train with.
        trials: Trials of the steps, in order; empty if the data has too few users to judge.
    """

    settings: ModelSettings
    trials: list[Trial]

    def facts(self) -> list[dict[str, Any]]:
        """Return the trials for a manifest."""
        return [{"what": trial.what, "ndcg_10": trial.ndcg_10, "recall_20": trial.recall_20} for trial in self.trials]

    def describe(self) -> Iterator[str]:
        """Yield one line per trial for the log."""
        for trial in self.trials:
            yield f"{trial.what}: NDCG@10 {trial.ndcg_10:.4f}, Recall@20 {trial.recall_20:.4f}"


def choose(
    records: Sequence[UserRecord],
    *,
    items: Mapping[str, Item] | None = None,
    als: AlsSettings | None = None,
    ahead: bool = True,
    neighbours: bool = True,
) -> Choice:
    """
    Choose settings for *records*. Equal records give equal settings on machines of the same kind.

    Args:
        records: The training data.
        items: Attributes by item id, also of items without interactions.
        als: Settings of the factors after a search; None suggests them and tries two exponents.
        ahead: Whether the model predicts each user's next items, as in service, or random items of a history.
        neighbours: Whether neighbours may rank.

    Cost: three trainings on parts of the data, or of a sample of large data, and one more with new items; then about a
        hundred rankings for at most 1000 users.
    """
    items = items or {}
    ratings = make_ratings(records)
    suggested = ModelSettings(als) if als else suggest(ratings)
    records = _sample(records)
    ordered = ahead and all(item.time_us for record in records for item in record.history)
    holdout: Holdout = "temporal" if ordered else "random"
    task = make_task(*split_records(records, holdout=holdout, seed=_SEED), most=_MOST_USERS)
    if task.users.size < _FEWEST_USERS:
        return Choice(suggested, [])
    settings = suggested if als else suggest(task.ratings)
    exponents = (settings.als.frequency_exponent,) if als else FREQUENCY_EXPONENTS
    settings, arrays, best = _choose_factors(task, settings, exponents, HALF_LIVES if ordered else (0.0,))
    # The final training uses the settings suggested for the size of all data, not of the inner training part.
    exponent, half_life = settings.als.frequency_exponent, settings.half_life
    settings = replace(suggested, als=replace(suggested.als, frequency_exponent=exponent), half_life=half_life)
    strength, arrays, trials = _choose_strength(task, arrays, best, items)
    settings = replace(settings, attributes=replace(settings.attributes, strength=strength))
    views = (ORDERED_VIEWS if ordered else UNORDERED_VIEWS) if neighbours else ()
    blended, tried = _choose_blend(records, settings, task, arrays, items, views=views, ordered=ordered)
    settings, trials = replace(settings, blend=blended), [*trials, *tried]
    known = [items.get(item_id, Item(item_id)) for item_id in ratings.item_ids]
    if new := find_new(items.values(), known):
        trust, tried = choose_trust(task, settings, items, new_share=len(new) / (len(known) + len(new)))
        settings = replace(settings, attributes=replace(settings.attributes, trust=trust))
        trials += tried
    return Choice(settings, trials)


def _choose_blend(
    records: Sequence[UserRecord],
    settings: ModelSettings,
    task: Task,
    arrays: Arrays,
    items: Mapping[str, Item],
    *,
    views: Sequence[View],
    ordered: bool,
) -> tuple[BlendSettings | None, list[Trial]]:
    """Return the blend, or None if the factors alone serve every length, and the trials; *arrays* belong to *task*."""
    fitted = _Fitted(arrays, _count(task.records, task.ratings, ordered=ordered), task.ratings.item_ids)
    pool = _task_pool(fitted, task, views)
    weights = _fit([pool], np.zeros(2 + len(views)), range(2 + len(views)))
    newcomers = _Newcomers.of(records, settings, views, items, ordered=ordered)
    table, trials = _choose_by_length(newcomers, pool, weights)
    if not any(row[1:].any() for row in table):
        return None, trials
    used = [source for source in range(2, 2 + len(views)) if any(row[source] for row in table)]
    rows = tuple(tuple(float(row[source]) for source in (0, 1, *used)) for row in table)
    return BlendSettings(ordered, tuple(views[source - 2] for source in used), (*LENGTHS, _LONG), rows), trials


def _choose_strength(
    task: Task, arrays: Arrays, alone: Trial, items: Mapping[str, Item]
) -> tuple[float, Arrays, list[Trial]]:
    """Return the strength of the items' attributes, 0 if none gains `LEAST_GAIN`, with its arrays and the trials."""
    best, trials = (0.0, arrays, alone), [alone]
    if not any(item_id in items and items[item_id].attributes for item_id in task.ratings.item_ids):
        return 0.0, arrays, trials
    for strength in STRENGTHS:
        described = add_attributes(arrays, task.ratings, AttributeSettings(strength), items=items, new=())
        lists = list_by_model(RankingModel(unwritten(described, task.ratings.item_ids)), task)
        trials.append(Trial.judge(f"factors, attributes of strength {strength:g}", lists, task.held))
        if trials[-1].relative_to(alone) >= max(1 + LEAST_GAIN, best[2].relative_to(alone)):
            best = strength, described, trials[-1]
    return best[0], best[1], trials


def _sample(records: Sequence[UserRecord]) -> Sequence[UserRecord]:
    """Return *records*, or random ones of large data with about _MOST_TIES ties."""
    ties = sum(len(record.history) for record in records)
    if ties <= _MOST_TIES:
        return records
    chosen = np.random.default_rng(_SEED).permutation(len(records))[: len(records) * _MOST_TIES // ties]
    return [records[row] for row in np.sort(chosen).tolist()]


def _choose_factors(
    task: Task, settings: ModelSettings, exponents: Sequence[float], half_lives: Sequence[float]
) -> tuple[ModelSettings, Arrays, Trial]:
    tried: list[tuple[ModelSettings, Arrays, Trial]] = []
    for exponent in exponents:
        each = replace(settings, als=replace(settings.als, frequency_exponent=exponent))
        fitted = fit_arrays(task.records, task.ratings, each)
        # The best half-life does not depend on the exponent, so later exponents use that of the best trial.
        for half_life in [_best_of(tried)[0].half_life] if tried else half_lives:
            arrays = {**fitted, "fold_in": np.array([each.prior_strength, half_life], np.float32)}
            lists = list_by_model(RankingModel(unwritten(arrays, task.ratings.item_ids)), task)
            name = f"factors, frequency exponent {exponent:g}, half-life {half_life:g}"
            tried.append((replace(each, half_life=half_life), arrays, Trial.judge(name, lists, task.held)))
    return _best_of(tried)


def _best_of(tried: Sequence[tuple[ModelSettings, Arrays, Trial]]) -> tuple[ModelSettings, Arrays, Trial]:
    """Return the trial with the best measures relative to the first trial."""
    return max(tried, key=lambda one: one[2].relative_to(tried[0][2]))


@dataclass(frozen=True)
class _Fitted:
    """The sources, fitted to a part of the data."""

    arrays: Arrays
    pairs: Pairs
    item_ids: Sequence[str]

    @classmethod
    def to(
        cls, records: Sequence[UserRecord], settings: ModelSettings, items: Mapping[str, Item], *, ordered: bool
    ) -> "_Fitted":
        """Fit the factors to *records* and count their pairs."""
        ratings = make_ratings(records)
        arrays = fit_arrays(records, ratings, replace(settings, blend=None), items=items)
        return cls(arrays, _count(records, ratings, ordered=ordered), ratings.item_ids)

    def blended(self, views: Sequence[View], records: Sequence[UserRecord]) -> RankingModel:
        """Return a model with a neighbour source for each of *views*; only items of *records* have neighbours."""
        columns = {item_id: column for column, item_id in enumerate(self.item_ids)}
        voting = np.zeros(len(columns), np.bool_)
        voting[[columns[item.item_id] for each in records for item in each.history if item.item_id in columns]] = True
        everything = BlendSettings(ordered=True, views=tuple(views), lengths=(0,), weights=((1.0,) * (2 + len(views)),))
        arrays = {**self.arrays, **make_blend_arrays(self.pairs, everything, only=voting)}
        return RankingModel(unwritten(arrays, self.item_ids))


def _count(records: Sequence[UserRecord], ratings: Ratings, *, ordered: bool) -> Pairs:
    return count_pairs(list_columns(records, ratings), items=len(ratings.item_ids), ordered=ordered)


def _task_pool(fitted: _Fitted, task: Task, views: Sequence[View]) -> "_Pool":
    names = {column: item_id for item_id, column in task.columns.items()}
    records = [task.records[row] for row in task.users]
    queries = [
        Query(compute_features(record), [item.item_id for item in record.history[:MAX_HISTORY]], DEPTH)
        for record in records
    ]
    ends = task.held.indptr
    held = [[names[column] for column in task.held.indices[ends[n] : ends[n + 1]]] for n in range(len(records))]
    return _Pool.of(fitted.blended(views, records), queries, held, views)


@dataclass(frozen=True)
class _Pool:
    """Candidates of some users with scores from each source: the factors (0), popularity (1), then the views."""

    rows: I64
    counts: I64
    columns: list[F64]
    held: csr_array
    sizes: I64
    views: Sequence[View]

    @classmethod
    def of(
        cls, model: RankingModel, queries: Sequence[Query], held: Sequence[Sequence[str]], views: Sequence[View]
    ) -> "_Pool":
        """
        Collect the candidates of *queries*.

        Args:
            model: A model with a neighbour source for each of *views*.
            queries: One query per user.
            held: Item ids to be found, one list per query.
            views: The neighbour sources.
        """
        with threadpool_limits(limits=1):
            parts = [model.candidates(queries[start : start + _BATCH]) for start in range(0, len(queries), _BATCH)]
        columns = {item_id: column for column, item_id in enumerate(model.item_ids)}
        for item_id in (item_id for each in held for item_id in each):
            columns.setdefault(item_id, len(columns))
        return cls(
            np.concatenate([part[0] for part in parts]),
            np.concatenate([part[1] for part in parts]),
            [np.concatenate(column) for column in zip(*(part[2] for part in parts), strict=True)],
            hold(held, columns),
            np.array([len(query.history) for query in queries], np.int64),
            views,
        )

    def among(self, least: int, below: int) -> "_Pool":
        """Return the users whose histories have at least *least* and fewer than *below* items."""
        users = (self.sizes >= least) & (self.sizes < below)
        kept = np.repeat(users, self.counts)
        return replace(
            self,
            rows=self.rows[kept],
            counts=self.counts[users],
            columns=[column[kept] for column in self.columns],
            held=self.held[users.nonzero()[0]],
            sizes=self.sizes[users],
        )

    def found(self) -> NDArray[np.bool_]:
        """Return, for each candidate, whether it is held out for its user."""
        width = self.held.shape[1]
        cells = np.repeat(np.arange(self.counts.size), self.counts) * width + self.rows
        wanted = np.repeat(np.arange(self.counts.size), np.diff(self.held.indptr)) * width + self.held.indices
        return np.isin(cells, wanted)

    def judge(self, weights: F64, *, what: str) -> Trial:
        """Return the quality of the blend with *weights*."""
        sources = weights.nonzero()[0]
        table: F32 = np.tile(weights[sources].astype(np.float32), (self.counts.size, 1))
        scores = blend([self.columns[source] for source in sources], table, self.counts)
        lists = rank_candidates(self.rows, scores, counts=self.counts, limit=DEPTH).ids
        return Trial.judge(f"{what}: {_name(weights, self.views)}", lists, self.held)


def _fit(pools: Sequence[_Pool], start: F64, sources: Sequence[int]) -> F64:
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


def _choose_by_length(newcomers: "_Newcomers", pool: _Pool, weights: F64) -> tuple[list[F64], list[Trial]]:
    """Return the weights for every length and for long histories, and pairs of trials: factors alone, then blend."""
    table, trials = [], []
    for least, below in zip(LENGTHS, [*list(LENGTHS)[1:], _LONG], strict=True):
        pools = [pool.among(least, below)]
        if pools[0].counts.size < _ENOUGH_USERS and (known := newcomers.pool(LENGTHS[least])):
            pools.append(known)
        # Without a history, no item votes for neighbours.
        row = _fit(pools, weights, range(len(weights) if least else 2))
        chosen, tried = _accept(pools[-1], _complete(scaled(row)), what=f"{least} to {below - 1} items")
        table.append(chosen)
        trials += tried
    chosen, tried = _accept(pool, _complete(scaled(weights)), what="all hold-out users")
    return [*table, chosen], [*trials, *tried]


def _accept(pool: _Pool, weights: F64, *, what: str) -> tuple[F64, list[Trial]]:
    """Return *weights* if they gain enough over the factors alone, else those of the factors alone; and both trials."""
    alone = np.eye(weights.size)[0]
    if not pool.counts.size:
        return weights, []
    before, after = pool.judge(alone, what=what), pool.judge(weights, what=what)
    return (weights if after.relative_to(before) >= 1 + LEAST_GAIN else alone), [before, after]


def _complete(weights: F64) -> F64:
    """Give popularity a weight if neither it nor the factors has one, so that every list can be filled."""
    if weights[:2].any():
        return weights
    return np.where(np.arange(weights.size) == 1, 0.01, weights)


@dataclass(frozen=True)
class _Newcomers:
    """Users held out completely (strangers), and a model that was fitted without them."""

    model: RankingModel
    views: Sequence[View]
    strangers: Sequence[UserRecord]

    @classmethod
    def of(
        cls,
        records: Sequence[UserRecord],
        settings: ModelSettings,
        views: Sequence[View],
        items: Mapping[str, Item],
        *,
        ordered: bool,
    ) -> "_Newcomers":
        """Hold out a fifth of the users, at most 1000, and fit the sources to the other users."""
        rng = np.random.default_rng(_SEED)
        able = [row for row, record in enumerate(records) if len(record.history) > 1]
        out = set(rng.permutation(able)[: min(_MOST_USERS, int(len(able) * _NEWCOMERS))].tolist())
        training = [record for row, record in enumerate(records) if row not in out]
        strangers = [_arranged(records[row], rng, ordered=ordered) for row in sorted(out)]
        fitted = _Fitted.to(training, settings, items, ordered=ordered)
        return cls(fitted.blended(views, strangers), views, strangers)

    def pool(self, known: int) -> _Pool | None:
        """Return the candidates of all strangers, given their oldest *known* items; None without strangers."""
        able = [record for record in self.strangers if len(record.history) > known]
        if not able:
            return None
        item_ids = [[item.item_id for item in record.history] for record in able]
        queries = [
            Query(msgspec.structs.replace(UNKNOWN_FEATURES, age_group=record.age_group), ids[len(ids) - known :], DEPTH)
            for record, ids in zip(able, item_ids, strict=True)
        ]
        held = [ids[max(0, len(ids) - known - DEPTH) : len(ids) - known] for ids in item_ids]
        return _Pool.of(self.model, queries, held, self.views)


def _arranged(record: UserRecord, rng: np.random.Generator, *, ordered: bool) -> UserRecord:
    """Return *record*; if it is not *ordered* by time, its history gets a random order."""
    if ordered:
        return record
    places = rng.permutation(len(record.history))
    return msgspec.structs.replace(record, history=[record.history[place] for place in places])


def _name(weights: F64, views: Sequence[View]) -> str:
    names = ["factors", "popularity", *(_name_view(view) for view in views)]
    return " + ".join(f"{weight:.3g} {name}" for weight, name in zip(weights, names, strict=True) if weight)


def _name_view(view: View) -> str:
    return (
        f"neighbours(backward {view.backward:g}, exponents {view.source_exponent:g} {view.target_exponent:g}, "
        f"half-life {view.half_life:g})"
    )
