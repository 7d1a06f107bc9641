"""
Learn what suits users who arrive: the next users without a history come after the training.

Users drawn at random (`newcomers`) come at any time, and the data that their model learned from holds what came later.
Recent popularity would be that of the wrong time. The hold-outs here are at dates: the training data before a date, and
the users whose first interaction is later. The weights for users without a history are learned on these users.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from offline.dates import FEWEST_USERS, Dated
from offline.evaluation.quality import DEPTH
from offline.folds import FittedSources
from offline.pools import Pool, Sources
from recrank.model import Query
from recsys.features import UNKNOWN_FEATURES
from recsys.records import UserRecord

# With as many users, one date is enough.
_ENOUGH_USERS = 300


@dataclass(frozen=True)
class Arriving:
    """
    The users who arrive, held out.

    Attributes:
        groups: For each date, newest first, the users who arrive between it and the date after it; empty if too few arrive.
    """

    groups: Sequence[Sequence[UserRecord]]

    @classmethod
    def of(cls, dates: Sequence[Dated], *, most: int) -> "Arriving":
        """Return the users who arrive after *dates*, at most *most* after each; few users of one date need another one."""
        groups: list[Sequence[UserRecord]] = []
        for date in dates:
            if len(date.arrived) < FEWEST_USERS or sum(map(len, groups)) >= _ENOUGH_USERS:
                break
            chosen = np.random.default_rng(0).permutation(len(date.arrived))[:most]
            groups.append([date.arrived[place] for place in np.sort(chosen).tolist()])
        return cls(groups)

    def pools(self, fits: Sequence[FittedSources], sources: Sources) -> list[Pool]:
        """Return the candidates of the users without a history, to find their first items; *fits* has one for each date."""
        return [_pool(fitted, users, sources) for fitted, users in zip(fits, self.groups, strict=False)]


def _pool(fitted: FittedSources, users: Sequence[UserRecord], sources: Sources) -> Pool:
    queries = [Query(msgspec.structs.replace(UNKNOWN_FEATURES, age_group=user.age_group), [], DEPTH) for user in users]
    held = [[item.item_id for item in user.history[-DEPTH:]] for user in users]
    return Pool.of(fitted.blended(sources, []), queries, held, sources)
