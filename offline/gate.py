"""
Compare a newly trained model with the serving one on what users did after the serving model was trained.

The interactions since then are divided at a time. The challenger is trained on everything up to that time, and both
models recommend to the users who acted after it. Neither model has seen what they did.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from offline.evaluation.contenders import list_by_model
from offline.evaluation.quality import MeanInterval, Task, bootstrap, make_task, score_lists
from recrank.model import RankingModel
from recsys.records import UserRecord

# A model may lose this share of the serving model's NDCG@10, because a comparison on few users is inexact.
MARGIN = 0.05
_MOST_USERS = 1000


@dataclass(frozen=True)
class Evidence:
    """
    The interactions that neither model has seen, and what came before them.

    Attributes:
        known: The records up to the dividing time. Counters are not divided, because they are sums.
        task: The users who acted after that time, at most 1,000, and the items that were new to them.
        fresh: Number of pairs of user and item with an interaction after the serving model's data.
    """

    known: list[UserRecord]
    task: Task
    fresh: int


def divide(records: Sequence[UserRecord], *, after_us: int) -> Evidence:
    """
    Divide the interactions after *after_us* (microseconds since the epoch) at their median time.

    Args:
        records: The content of a feature store.
        after_us: Newest interaction that the serving model was trained on; 0 if it does not say.
    """
    times = np.array([item.time_us for record in records for item in record.history], np.int64)
    fresh = times[times > after_us]
    date = int(np.median(fresh)) if fresh.size else after_us
    known, task = split_at(records, date)
    return Evidence(known, task, fresh.size)


def split_at(records: Sequence[UserRecord], date_us: int) -> tuple[list[UserRecord], Task]:
    """Return *records* up to *date_us*, and the users who acted later, with the items that were new to them."""
    known, later = [], dict[str, list[str]]()
    for record in records:
        kept = [item for item in record.history if item.time_us <= date_us]
        if len(kept) < len(record.history):
            later[record.user_id] = [item.item_id for item in record.history if item.time_us > date_us]
        known.append(msgspec.structs.replace(record, history=kept))
    return known, make_task(known, later, most=_MOST_USERS)


@dataclass(frozen=True)
class GateVerdict:
    """
    The result of a comparison.

    Attributes:
        users: Number of users compared.
        serving: NDCG@10 of the serving model.
        challenger: NDCG@10 of the challenger.
        difference: Challenger minus serving, with its 95 % interval over users.
        fault: Why the challenger may not serve; empty if it may.
    """

    users: int
    serving: float
    challenger: float
    difference: MeanInterval
    fault: str

    def describe(self) -> str:
        """Return the figures in a sentence."""
        gap = self.difference
        return (
            f"NDCG@10 of {self.users} users' newest items: {self.challenger:.4f}, serving model {self.serving:.4f}, "
            f"difference {gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})"
        )

    def facts(self) -> Mapping[str, Any]:
        """Return the figures for a manifest."""
        return {"users": self.users, "serving_ndcg_10": self.serving, "challenger_ndcg_10": self.challenger}


def judge(challenger: RankingModel, serving: RankingModel, task: Task, *, margin: float = MARGIN) -> GateVerdict:
    """
    Compare two models on *task*, which neither has seen.

    The challenger may not serve if its NDCG@10 is lower by more than *margin* of the serving model's, or if it is lower
    and the 95 % interval of the difference excludes 0.

    Cost: a ranking for each user and model, and 2,000 bootstrap draws.
    """
    scores = [score_lists(list_by_model(model, task), task.held)[0] for model in (challenger, serving)]
    (difference,) = bootstrap((scores[0] - scores[1])[:, None])
    means = [float(score.mean()) for score in scores]
    fault = ""
    if difference.mean < -margin * means[1]:
        fault = f"it finds {-difference.mean / means[1]:.0%} less than the serving model; {margin:.0%} is allowed"
    elif difference.high < 0:
        fault = "it finds less than the serving model, and the difference is not by chance"
    return GateVerdict(task.users.size, means[1], means[0], difference, fault)
