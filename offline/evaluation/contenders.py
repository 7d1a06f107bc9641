"""
What is compared, each as a function from a task to its lists.

The model is asked exactly what it is asked in service: features computed from the record, the history cut to what
extract_features hands on, no weights. In process that goes to the same `RankingModel` that rank_items holds; through a URL
it goes the whole way.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import msgspec
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
_TIMEOUT_S = 30.0
_TRIES = 3


class AskError(Exception):
    """The pipeline at a URL does not answer as it should."""


class _Answered(msgspec.Struct):
    recommendations: list[RankedItem] = []
    degraded: list[str] = []
    error: msgspec.Raw = msgspec.Raw(b"")


class _Results(msgspec.Struct):
    results: list[_Answered]


_results = msgspec.json.Decoder(_Results)


def list_by_scores(score: Scorer, task: Task, *, name: str) -> I64:
    """Return the lists (N, DEPTH) of a baseline; columns of *task*, -1 where a list is shorter."""
    return np.concatenate(
        [list_best(score(rows), task.ratings.weights[rows]) for rows in _batches(task.users, name=name)]
    )


def load_model(folder: Path) -> RankingModel:
    """
    Return the model of the artefact in *folder*, as rank_items would hold it.

    Raises:
        ArtefactError: it cannot be used.
    """
    with threadpool_limits(limits=1):
        return RankingModel(read_artefact(folder))


def list_by_model(model: RankingModel, task: Task) -> I64:
    """Return the lists of *model*, asked in process."""
    return list_answers(rank_by_model(model, task), task)


def rank_by_model(model: RankingModel, task: Task, *, name: str = "") -> list[list[RankedItem]]:
    """Return what *model* answers each user of *task*, as it would stand on the wire; with a *name*, under a bar."""
    answers: list[list[RankedItem]] = []
    # One thread, as in rank_items: the bits of a fold-in may depend on it.
    with threadpool_limits(limits=1):
        for rows in _batches(task.users, name=name):
            for ranking in model.rank([_query(task, row) for row in rows]):
                pairs = zip(ranking.item_ids, ranking.scores, strict=True)
                answers.append([RankedItem(item_id, round(score, 3) + 0.0) for item_id, score in pairs])
    return answers


def rank_by_url(url: str, task: Task, *, name: str) -> list[list[RankedItem]]:
    """
    Return what the pipeline at *url* answers each user of *task*.

    Raises:
        AskError: it does not answer, refuses, or answers without its features or its model.
    """
    answers: list[list[RankedItem]] = []
    # Strict: an answer made without one of the hops is no answer of the model.
    headers = {"Prefer": "handling=strict", "Content-Type": "application/json"}
    with httpx.Client(headers=headers, timeout=_TIMEOUT_S) as client:
        for rows in _batches(task.users, name=name):
            requests = [{"user_id": task.ratings.user_ids[row], "top_k": DEPTH} for row in rows]
            answers += _ask(client, url, msgspec.json.encode({"requests": requests}))
    return answers


def list_answers(answers: Sequence[Sequence[RankedItem]], task: Task) -> I64:
    """Return *answers* as lists (N, DEPTH); items the data do not know are misses."""
    lists = np.full((len(answers), DEPTH), -1, np.int64)
    for row, items in enumerate(answers):
        lists[row, : len(items)] = [task.columns.get(item.item_id, -1) for item in items]
    return lists


def count_differing(first: Sequence[Sequence[RankedItem]], second: Sequence[Sequence[RankedItem]]) -> int:
    """Return how many lists differ, in an item, an order or a score."""
    return sum(list(one) != list(other) for one, other in zip(first, second, strict=True))


def _ask(client: httpx.Client, url: str, body: bytes) -> list[list[RankedItem]]:
    for last in [False] * (_TRIES - 1) + [True]:
        try:
            answer = client.post(url, content=body)
        except httpx.TransportError as error:
            raise AskError(f"nothing answers at {url}: {error}; start the pipeline with ./run.sh up") from error
        busy = answer.status_code in {httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT}
        if last or not busy:
            break
    if answer.status_code != httpx.codes.OK:
        raise AskError(f"{url} answers {answer.status_code}: {answer.text[:200]}")
    try:
        results = _results.decode(answer.content).results
    except msgspec.DecodeError as error:
        raise AskError(f"{url} answers something that is no list of recommendations: {error}") from error
    for each in results:
        if bytes(each.error) or each.degraded:
            raise AskError(f"{url} cannot recommend to every user: {bytes(each.error).decode() or each.degraded}")
    return [each.recommendations for each in results]


def _query(task: Task, row: int) -> Query:
    record = task.records[row]
    return Query(compute_features(record), [item.item_id for item in record.history[:MAX_HISTORY]], top_k=DEPTH)


def _batches(users: I64, *, name: str) -> Iterator[I64]:
    with tqdm(total=users.size, desc=name, unit="user", disable=None if name else True) as bar:
        for start in range(0, users.size, _BATCH):
            rows = users[start : start + _BATCH]
            yield rows
            bar.update(rows.size)
