"""Hold out users completely, to learn what suits users with short histories."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from offline.evaluation.quality import DEPTH
from offline.folds import FittedSources
from offline.pools import Pool, Sources
from offline.training import ModelSettings
from recrank.artefact import Item
from recrank.model import Query, RankingModel
from recsys.features import UNKNOWN_FEATURES
from recsys.records import UserRecord

_SHARE = 0.2
_SEED = 100


@dataclass(frozen=True)
class Newcomers:
    """Users held out completely (strangers), and a model that was fitted without them."""

    model: RankingModel
    sources: Sources
    strangers: Sequence[UserRecord]

    @classmethod
    def of(
        cls,
        records: Sequence[UserRecord],
        settings: ModelSettings,
        sources: Sources,
        items: Mapping[str, Item],
        *,
        ordered: bool,
        most: int,
    ) -> "Newcomers":
        """Hold out some users as `split_off` does, and fit the sources to the other users."""
        training, strangers = split_off(records, most=most, ordered=ordered)
        fitted = FittedSources.to(training, settings, items, ordered=ordered)
        return cls(fitted.blended(sources, strangers), sources, strangers)

    def pool(self, known: int) -> Pool | None:
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
        return Pool.of(self.model, queries, held, self.sources)


def split_off(records: Sequence[UserRecord], *, most: int, ordered: bool) -> tuple[list[UserRecord], list[UserRecord]]:
    """
    Return the other users and the strangers: a random fifth of the users with two items, at most *most*.

    If histories are not *ordered* by time, those of the strangers get a random order.
    """
    rng = np.random.default_rng(_SEED)
    able = [row for row, record in enumerate(records) if len(record.history) > 1]
    out = set(rng.permutation(able)[: min(most, int(len(able) * _SHARE))].tolist())
    strangers = [records[row] for row in sorted(out)]
    if not ordered:
        strangers = [
            msgspec.structs.replace(each, history=[each.history[place] for place in rng.permutation(len(each.history))])
            for each in strangers
        ]
    return [record for row, record in enumerate(records) if row not in out], strangers
