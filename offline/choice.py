"""
Choose the sources and their weights by validation inside the training data.

Four hold-outs validate the choices:

    ahead       a fifth of each user's items: the newest ones, or random ones if times are missing
    newcomers   some users completely: their first 0, 1, 2, 5 or 10 items are known, and the next 20 are to be found
    returning   all interactions from a date on, for users who were away on that date (`return_weights`)
    arriving    the first 20 items of users who come after a date (`arrival_weights`)

1. The settings of the factors: the half-life of the history, then the exponent of the item ridge. The measure is the
   mean of NDCG@10 and Recall@20, each relative to the first trial.
2. The strength of the items' attributes, if the items have any (`descriptions`).
3. The half-life within the blend, and the weights of factors, popularity and the views of the counted pairs, learned on
   the first hold-out and, for small data, on one more inside its training part (`source_weights`). A view of the whole
   history costs most at serving, so at most one joins, and only if it gains `LEAST_GAIN` (`selection`).
4. The weights for each length of short histories, learned on users with histories of that length. If such users are
   few, the weights are also learned and judged on newcomers (`lengths`). Users without a history are those who arrive,
   or newcomers if few arrive. The weights of each length are refined by what the lists find (`refinement`).
5. The weights for users who return after they were away, of recent popularity too.
6. The trust in predictions for new items, if the catalogue has any (`trust`).

Weights that gain less than `LEAST_GAIN` over the factors alone are not used; the factors then rank alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from offline.als import AlsSettings
from offline.arrival_weights import Arriving
from offline.dates import FEWEST_USERS, split_at_dates
from offline.descriptions import Arrays, find_new
from offline.evaluation.holdout import Holdout, split_records
from offline.evaluation.quality import Task, make_task
from offline.evaluation.trials import Trial
from offline.factor_settings import FREQUENCY_EXPONENTS, HALF_LIVES, choose_factors, choose_strength
from offline.folds import FittedSources, Fold
from offline.lengths import LENGTHS, LONG, choose_by_length
from offline.matrix import make_ratings
from offline.newcomers import Newcomers
from offline.pairs import View
from offline.pools import Sources
from offline.return_weights import RECENT, Returning
from offline.selection import ORDERED_VIEWS, UNORDERED_VIEWS, choose_half_life, choose_views
from offline.training import BlendSettings, ModelSettings, suggest
from offline.trust import MOST_USERS as TRUST_USERS
from offline.trust import choose_trust
from recrank.artefact import Item
from recrank.mixture import FIXED_SOURCES
from recsys.records import UserRecord

_MOST_USERS = 1000
_MOST_TIES = 1_000_000
# Larger data has enough users in one hold-out, and a second one would cost minutes.
_MOST_TIES_TWICE = 500_000
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


def choose(
    records: Sequence[UserRecord],
    *,
    items: Mapping[str, Item] | None = None,
    als: AlsSettings | None = None,
    ahead: bool = True,
    neighbours: bool = True,
    tell: Callable[[str], None] = lambda _: None,
) -> Choice:
    """
    Choose settings for *records*. Equal records give equal settings on machines of the same kind.

    Args:
        records: The training data.
        items: Attributes by item id, also of items without interactions.
        als: Settings of the factors after a search; None suggests them and tries two exponents.
        ahead: Whether the model predicts each user's next items, as in service, or random items of a history.
        neighbours: Whether neighbours may rank.
        tell: Takes the name of each step when it begins.

    Cost: up to six trainings on parts of the data, or of a sample of large data, and one more with new items; then
        about a hundred rankings for at most 1000 users, and with new items up to eight for 4000 users.
    """
    items = items or {}
    ratings = make_ratings(records)
    suggested = ModelSettings(als) if als else suggest(ratings)
    records = _sample(records)
    ordered = ahead and all(item.time_us for record in records for item in record.history)
    holdout: Holdout = "temporal" if ordered else "random"
    split = split_records(records, holdout=holdout, seed=_SEED)
    task = make_task(*split, most=_MOST_USERS)
    if task.users.size < FEWEST_USERS:
        return Choice(suggested, [])
    settings = suggested if als else suggest(task.ratings)
    exponents = (settings.als.frequency_exponent,) if als else FREQUENCY_EXPONENTS
    tell("choosing the settings of the factors")
    settings, arrays, best = choose_factors(task, settings, exponents, HALF_LIVES if ordered else (0.0,))
    # The final training uses the settings suggested for the size of all data, not of the inner training part.
    exponent, half_life = settings.als.frequency_exponent, settings.half_life
    settings = replace(suggested, als=replace(suggested.als, frequency_exponent=exponent), half_life=half_life)
    strength, arrays, trials = choose_strength(task, arrays, best, items)
    settings = replace(settings, attributes=replace(settings.attributes, strength=strength))
    tell("choosing the weights of the sources")
    views = (ORDERED_VIEWS if ordered else UNORDERED_VIEWS) if neighbours else ()
    # No name for the folds, so that they can be freed when they are not needed any more.
    settings, tried = _choose_blend(
        records, settings, _fold(task, arrays, settings, items, holdout=holdout), items, views=views, ordered=ordered
    )
    trials += tried
    known = [items.get(item_id, Item(item_id)) for item_id in ratings.item_ids]
    if new := find_new(items.values(), known):
        tell("choosing the trust in new items")
        judges = make_task(*split, most=TRUST_USERS)
        trust, tried = choose_trust(judges, settings, items, new_share=len(new) / (len(known) + len(new)))
        settings = replace(settings, attributes=replace(settings.attributes, trust=trust))
        trials += tried
    return Choice(settings, trials)


def _fold(
    task: Task, arrays: Arrays, settings: ModelSettings, items: Mapping[str, Item], *, holdout: Holdout
) -> list[Fold]:
    """Return the hold-out of *task*, whose factors are *arrays*, and a second one inside its training part, unless it is large."""
    ordered = holdout == "temporal"
    folds = [Fold(task, FittedSources.around(arrays, task.records, task.ratings, ordered=ordered))]
    if task.ratings.weights.nnz <= _MOST_TIES_TWICE:
        second = make_task(*split_records(task.records, holdout=holdout, seed=_SEED + 1), most=_MOST_USERS)
        if second.users.size >= FEWEST_USERS:
            folds.append(Fold(second, FittedSources.to(second.records, settings, items, ordered=ordered)))
    return folds


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
    dates = split_at_dates(records) if ordered else []
    returning, arriving = Returning.of(dates, most=_MOST_USERS), Arriving.of(dates, most=_MOST_USERS)
    recent, trials = returning.choose_recent() if returning else (RECENT, [])
    half_life, pools, tried = choose_half_life(folds, Sources(tuple(views), recent), settings.half_life)
    # The counted pairs of the folds take hundreds of megabytes for a million ties. The pools hold what is needed of them.
    del folds
    blended = replace(settings, half_life=half_life)
    trials += tried
    pools, weights, tried = choose_views(pools)
    sources, trials = pools[0].sources, [*trials, *tried]
    newcomers = Newcomers.of(records, blended, sources, items, ordered=ordered, most=_MOST_USERS)
    used_dates = dates[: max(len(arriving.groups), len(returning.tasks) if returning else 0)]
    fits = [FittedSources.to(date.before, blended, items, ordered=True) for date in used_dates]
    table, tried = choose_by_length(newcomers, pools, weights, arrived=arriving.pools(fits, sources))
    trials += tried
    away = None
    if returning:
        away, tried = returning.choose_weights(fits, sources, start=weights, usual=table[-1])
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


def _sample(records: Sequence[UserRecord]) -> Sequence[UserRecord]:
    """Return *records*, or random ones of large data with about _MOST_TIES ties."""
    ties = sum(len(record.history) for record in records)
    if ties <= _MOST_TIES:
        return records
    chosen = np.random.default_rng(_SEED).permutation(len(records))[: len(records) * _MOST_TIES // ties]
    return [records[row] for row in np.sort(chosen).tolist()]
