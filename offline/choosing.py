"""
Choose the sources and their weights by validation inside the training data.

Three hold-outs validate the choices:

    ahead       a fifth of each user's items: the newest ones, or random ones if times are missing
    newcomers   some users completely: their first 0, 1, 2, 5 or 10 items are known, and the next 20 are to be found
    returning   all interactions from a date on, for users who were away on that date (`returning`)

1. The settings of the factors: the half-life of the history, then the exponent of the item ridge. The measure is the
   mean of NDCG@10 and Recall@20, each relative to the first trial.
2. The strength of the items' attributes, if the items have any (`describing`).
3. The weights of factors, popularity and the views of the counted pairs, learned on the first hold-out (`weighing`).
   The view of the whole history costs most at serving, so it joins only if it gains `LEAST_GAIN`.
4. The weights for each length of short histories, learned on users with histories of that length. If such users are
   few, the weights are also learned and judged on newcomers.
5. The weights for users who return after they were away, of recent popularity too.
6. The trust in predictions for new items, if the catalogue has any (`trusting`).

Weights that gain less than `LEAST_GAIN` over the factors alone are not used; the factors then rank alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from offline.als import AlsSettings
from offline.describing import Arrays, AttributeSettings, find_new
from offline.evaluation.contenders import list_by_model
from offline.evaluation.holdout import Holdout, split_records
from offline.evaluation.quality import Task, make_task
from offline.evaluation.trials import Trial, unwritten
from offline.lengths import LENGTHS, LONG, choose_by_length
from offline.matrix import make_ratings
from offline.newcomers import Newcomers
from offline.pairs import View
from offline.pooling import Fitted, Fold, Pool, Sources, complete, judge, learn
from offline.returning import LEAST_GAIN, RECENT, Returning
from offline.training import BlendSettings, ModelSettings, add_attributes, fit_arrays, suggest
from offline.trusting import choose_trust
from offline.weighing import scaled
from recsys.ranking.artefact import Item
from recsys.ranking.mixing import FIXED_SOURCES
from recsys.ranking.model import RankingModel
from recsys.records import UserRecord
from topk.item_table import F64

HALF_LIVES = (0.0, 20.0, 8.0, 5.0, 3.0, 2.0)
FREQUENCY_EXPONENTS = (0.8, 0.0)
STRENGTHS = (2.0, 5.0)
# The first view finds items that follow the newest item, the second one items that go with the last few, the third one
# items that go with any of the history.
ORDERED_VIEWS = (View(0.0, 0.5, 0.2, 1.0), View(0.5, 0.5, 0.5, 3.0), View(1.0, 0.5, 0.2, 0.0))
UNORDERED_VIEWS = (View(0.0, 0.5, 0.5, 0.0),)

_FEWEST_USERS, _MOST_USERS = 50, 1000
_MOST_TIES = 1_000_000
_SEED = 100


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

    Cost: up to six trainings on parts of the data, or of a sample of large data, and one more with new items; then
        about a hundred rankings for at most 1000 users.
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
    folds = [Fold(task, Fitted.around(arrays, task.records, task.ratings, ordered=ordered))]
    second = make_task(*split_records(task.records, holdout=holdout, seed=_SEED + 1), most=_MOST_USERS)
    if second.users.size >= _FEWEST_USERS:
        folds.append(Fold(second, Fitted.to(second.records, settings, items, ordered=ordered)))
    settings, tried = _choose_blend(records, settings, folds, items, views=views, ordered=ordered)
    trials += tried
    known = [items.get(item_id, Item(item_id)) for item_id in ratings.item_ids]
    if new := find_new(items.values(), known):
        trust, tried = choose_trust(task, settings, items, new_share=len(new) / (len(known) + len(new)))
        settings = replace(settings, attributes=replace(settings.attributes, trust=trust))
        trials += tried
    return Choice(settings, trials)


def _choose_blend(
    records: Sequence[UserRecord],
    settings: ModelSettings,
    folds: Sequence[Fold],
    items: Mapping[str, Item],
    *,
    views: Sequence[View],
    ordered: bool,
) -> tuple[ModelSettings, list[Trial]]:
    """Return *settings* with the blend and its half-life, unless the factors alone serve every length; and the trials."""
    returning = Returning.of(records, most=_MOST_USERS) if ordered else None
    recent, trials = returning.choose_recent() if returning else (RECENT, [])
    half_life, pools, tried = _choose_half_life(folds, Sources(tuple(views), recent), settings.half_life)
    blended = replace(settings, half_life=half_life)
    trials += tried
    pools, weights, tried = _choose_views(pools)
    sources, trials = pools[0].sources, [*trials, *tried]
    newcomers = Newcomers.of(records, blended, sources, items, ordered=ordered, most=_MOST_USERS)
    table, tried = choose_by_length(newcomers, pools, weights)
    trials += tried
    away = None
    if returning:
        away, tried = returning.choose_weights(blended, sources, items, start=weights, usual=table[-1])
        trials += tried
    lengths = (*LENGTHS, LONG)
    if away is not None:
        table.append(away)
    if not any(row[1:].any() for row in table):
        return settings, trials
    used = [source for source in range(FIXED_SOURCES, len(sources)) if any(row[source] for row in table)]
    rows = [tuple(float(row[source]) for source in (*range(FIXED_SOURCES), *used)) for row in table]
    chosen = tuple(sources.views[source - FIXED_SOURCES] for source in used)
    blend = BlendSettings(ordered, chosen, lengths, tuple(rows[: len(lengths)]), recent, (*rows, ())[len(lengths)])
    return replace(blended, blend=blend), trials


def _choose_half_life(folds: Sequence[Fold], sources: Sources, alone: float) -> tuple[float, list[Pool], list[Trial]]:
    """
    Return the best half-life of the factors within the blend, the candidates of the folds with it, and the trials.

    The other sources see the newest items, so the factors gain from a half-life at least as long as they have *alone*.
    """
    tried: list[tuple[float, list[Pool], Trial]] = []
    for half_life in HALF_LIVES[: HALF_LIVES.index(alone) + 1][::-1]:
        pools = [fold.pool(sources, half_life=half_life) for fold in folds]
        few = _with_few_views(pools)
        what = f"half-life {half_life:g} in the blend"
        tried.append((half_life, pools, judge(few, complete(scaled(_learn_all(few))), what=what)))
    best = max(tried, key=lambda one: one[2].relative_to(tried[0][2]))
    return best[0], best[1], [trial for _, _, trial in tried]


def _choose_views(pools: list[Pool]) -> tuple[list[Pool], F64, list[Trial]]:
    """Return *pools* without the view of the whole history, unless it gains `LEAST_GAIN`; the weights and the trials."""
    few = _with_few_views(pools)
    (before, fewer), (after, more) = ((each, _learn_all(each)) for each in (few, pools))
    if few is pools:
        return pools, more, []
    trials = [
        judge(each, complete(scaled(weights)), what="all hold-out users")
        for each, weights in ((before, fewer), (after, more))
    ]
    gains = trials[1].relative_to(trials[0]) >= 1 + LEAST_GAIN
    return (pools, more, trials) if gains else (few, fewer, trials)


def _with_few_views(pools: list[Pool]) -> list[Pool]:
    """Return *pools* without the view of the whole history, if they have it."""
    return [pool.without_last_view() for pool in pools] if len(pools[0].sources.views) == len(ORDERED_VIEWS) else pools


def _learn_all(pools: Sequence[Pool]) -> F64:
    return learn(pools, np.zeros(len(pools[0].sources)), pools[0].sources.of_present())


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
