"""
The lists of a model for a panel of users.

The model gets the same queries as in service: features computed from the record, and the history without weights, as
long as extract_features passes it on. It is the same `RankingModel` that rank_items uses.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from offline.evaluation.quality import DEPTH, Panel, Task
from offline.progress import progress
from offline.queries import query_of
from recrank.artefact import Artefact, read_artefact
from recrank.declared_rules import apply_rules
from recrank.model import RankingModel
from recrank.own_models import open_model
from recsys.contracts.wire import RankedItem
from recsys.records import UserRecord
from topk.item_table import I64

_BATCH = 32


def load_model(folder: Path) -> RankingModel:
    """
    Return the model of the artefact in *folder*, loaded as in rank_items.

    Raises:
        ArtefactError: the artefact cannot be used.
    """
    return open_alone(read_artefact(folder))


def load_served(folder: Path) -> RankingModel:
    """Return the model of the artefact in *folder*, which follows its declared rules; see `load_model`."""
    artefact = read_artefact(folder)
    return apply_rules(artefact.declaration.rules, open_alone(artefact))


def open_alone(artefact: Artefact) -> RankingModel:
    """Return the model of *artefact*, opened with one thread; see `load_model`."""
    with threadpool_limits(limits=1):
        return open_model(artefact)


def list_by_model(model: RankingModel, task: Task) -> I64:
    """Return the lists of *model*, which is called in process."""
    return list_answers(rank_by_model(model, task.panel), task.panel)


def rank_by_model(model: RankingModel, panel: Panel, *, name: str = "") -> list[list[RankedItem]]:
    """Return the answers of *model* for the users of *panel*, rounded as on the wire; *name* shows the progress."""
    answers: list[list[RankedItem]] = []
    # One thread, as in rank_items, because the bits of a fold-in may depend on the number of threads.
    with threadpool_limits(limits=1):
        for records in batches(panel.records, name=name):
            for ranking in model.rank([query_of(record, DEPTH, at_us=panel.asked_at(record)) for record in records]):
                pairs = zip(ranking.item_ids, ranking.scores, strict=True)
                answers.append([RankedItem(item_id, round(score, 3) + 0.0) for item_id, score in pairs])
    return answers


def list_answers(answers: Sequence[Sequence[RankedItem]], panel: Panel) -> I64:
    """Return *answers* as lists (N, DEPTH); an item that *panel* does not contain becomes -1, a miss."""
    lists = np.full((len(answers), DEPTH), -1, np.int64)
    for row, items in enumerate(answers):
        lists[row, : len(items)] = [panel.columns.get(item.item_id, -1) for item in items]
    return lists


def count_differing(first: Sequence[Sequence[RankedItem]], second: Sequence[Sequence[RankedItem]]) -> int:
    """Return the number of lists that differ in an item, the order or a score."""
    return sum(list(one) != list(other) for one, other in zip(first, second, strict=True))


def batches(records: Sequence[UserRecord], *, name: str) -> Iterator[Sequence[UserRecord]]:
    """Yield *records* in batches; a *name* shows the progress."""
    with progress(name, len(records), "users") if name else nullcontext(lambda _: None) as show:
        for start in range(0, len(records), _BATCH):
            yield records[start : start + _BATCH]
            show(min(start + _BATCH, len(records)))
