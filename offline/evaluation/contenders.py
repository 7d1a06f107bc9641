"""
The lists of each contender, a model or a baseline, for a task.

The model gets the same queries as in service: features computed from the record, and the history without weights, as
long as extract_features passes it on. It is the same `RankingModel` that rank_items uses.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from offline.evaluation.baselines import Scorer, list_best
from offline.evaluation.quality import DEPTH, Task
from recsys.contracts.wire import MAX_HISTORY, RankedItem
from recsys.features import compute_features
from recsys.ranking.artefact import read_artefact
from recsys.ranking.item_table import I64
from recsys.ranking.model import Query, RankingModel

_BATCH = 32


def list_by_scores(score: Scorer, task: Task, *, name: str) -> I64:
    """Return the lists (N, DEPTH) of a baseline as columns of *task*; shorter lists are padded with -1."""
    return np.concatenate(
        [list_best(score(rows), task.ratings.weights[rows]) for rows in batches(task.users, name=name)]
    )


def load_model(folder: Path) -> RankingModel:
    """
    Return the model of the artefact in *folder*, loaded as in rank_items.

    Raises:
        ArtefactError: the artefact cannot be used.
    """
    with threadpool_limits(limits=1):
        return RankingModel(read_artefact(folder))


def list_by_model(model: RankingModel, task: Task) -> I64:
    """Return the lists of *model*, which is called in process."""
    return list_answers(rank_by_model(model, task), task)


def rank_by_model(model: RankingModel, task: Task, *, name: str = "") -> list[list[RankedItem]]:
    """Return the answers of *model* for the users of *task*, rounded as on the wire; *name* shows a progress bar."""
    answers: list[list[RankedItem]] = []
    # One thread, as in rank_items, because the bits of a fold-in may depend on the number of threads.
    with threadpool_limits(limits=1):
        for rows in batches(task.users, name=name):
            for ranking in model.rank([_query(task, row) for row in rows]):
                pairs = zip(ranking.item_ids, ranking.scores, strict=True)
                answers.append([RankedItem(item_id, round(score, 3) + 0.0) for item_id, score in pairs])
    return answers


def list_answers(answers: Sequence[Sequence[RankedItem]], task: Task) -> I64:
    """Return *answers* as lists (N, DEPTH); an item that *task* does not contain becomes -1, a miss."""
    lists = np.full((len(answers), DEPTH), -1, np.int64)
    for row, items in enumerate(answers):
        lists[row, : len(items)] = [task.columns.get(item.item_id, -1) for item in items]
    return lists


def count_differing(first: Sequence[Sequence[RankedItem]], second: Sequence[Sequence[RankedItem]]) -> int:
    """Return the number of lists that differ in an item, the order or a score."""
    return sum(list(one) != list(other) for one, other in zip(first, second, strict=True))


def _query(task: Task, row: int) -> Query:
    record = task.records[row]
    return Query(compute_features(record), [item.item_id for item in record.history[:MAX_HISTORY]], top_k=DEPTH)


def batches(users: I64, *, name: str) -> Iterator[I64]:
    """Yield *users* in batches; a *name* shows a progress bar."""
    with tqdm(total=users.size, desc=name, unit="user", disable=None if name else True) as bar:
        for start in range(0, users.size, _BATCH):
            rows = users[start : start + _BATCH]
            yield rows
            bar.update(rows.size)
