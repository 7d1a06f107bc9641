"""Fit the sources to a part of the data, and collect the candidates of the users whose next items are held out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from offline.descriptions import Arrays
from offline.evaluation.quality import DEPTH, Task
from offline.evaluation.trials import unwritten
from offline.matrix import Ratings, list_columns, make_ratings
from offline.pairs import Pairs, count_pairs
from offline.pools import Pool, Sources
from offline.recency import Timeline
from offline.training import ModelSettings, fit_arrays, make_blend_arrays
from recrank.artefact import Item
from recrank.model import Query, RankingModel
from recsys.contracts.wire import MAX_HISTORY
from recsys.features import compute_features
from recsys.records import UserRecord


@dataclass(frozen=True)
class FittedSources:
    """
    The sources, fitted to a part of the data.

    Attributes:
        arrays: The artefact's arrays of the factors and of popularity.
        pairs: Counted pairs of items.
        timeline: The interactions in the order of time.
        item_ids: The catalogue.
    """

    arrays: Arrays
    pairs: Pairs
    timeline: Timeline
    item_ids: Sequence[str]

    @classmethod
    def to(
        cls, records: Sequence[UserRecord], settings: ModelSettings, items: Mapping[str, Item], *, ordered: bool
    ) -> "FittedSources":
        """Fit all sources to *records*."""
        ratings = make_ratings(records)
        arrays = fit_arrays(records, ratings, replace(settings, blend=None), items=items)
        return cls.around(arrays, records, ratings, ordered=ordered)

    @classmethod
    def around(
        cls, arrays: Arrays, records: Sequence[UserRecord], ratings: Ratings, *, ordered: bool
    ) -> "FittedSources":
        """Fit the other sources to *records*, whose factors and popularity are *arrays*."""
        pairs = count_pairs(
            list_columns(records, ratings), items=len(ratings.item_ids), ordered=ordered, together=ordered
        )
        return cls(arrays, pairs, Timeline.of(records, ratings), ratings.item_ids)

    def with_half_life(self, half_life: float) -> "FittedSources":
        """Return the same sources with another half-life of the factors' histories."""
        strength = self.arrays["fold_in"][0]
        return replace(self, arrays={**self.arrays, "fold_in": np.array([strength, half_life], np.float32)})

    def blended(self, sources: "Sources", records: Sequence[UserRecord]) -> RankingModel:
        """Return a model with all *sources*; only items of *records* have neighbours."""
        columns = {item_id: column for column, item_id in enumerate(self.item_ids)}
        voting = np.zeros(len(columns), np.bool_)
        voting[[columns[item.item_id] for each in records for item in each.history if item.item_id in columns]] = True
        blended = make_blend_arrays(self.pairs, sources.all_used(), timeline=self.timeline, only=voting)
        arrays = {**self.arrays, **blended}
        return RankingModel(unwritten(arrays, self.item_ids))


def pool_of_task(fitted: FittedSources, task: Task, sources: Sources) -> "Pool":
    """Return the candidates of the users of *task*."""
    names = {column: item_id for item_id, column in task.columns.items()}
    records = [task.records[row] for row in task.users]
    queries = [
        Query(compute_features(record), [item.item_id for item in record.history[:MAX_HISTORY]], DEPTH)
        for record in records
    ]
    ends = task.held.indptr
    held = [[names[column] for column in task.held.indices[ends[n] : ends[n + 1]]] for n in range(len(records))]
    return Pool.of(fitted.blended(sources, records), queries, held, sources)


@dataclass(frozen=True)
class Fold:
    """A hold-out and the sources that were fitted to its training part."""

    task: Task
    fitted: FittedSources

    def pool(self, sources: Sources, *, half_life: float) -> "Pool":
        """Return the candidates of the held-out users, with *half_life* for the histories of the factors."""
        return pool_of_task(self.fitted.with_half_life(half_life), self.task, sources)
