"""
Choose how much to trust the predictions for new items, so that they compete fairly with known ones.

Some items are hidden from the training part of an inner hold-out and become its new items. A trust is fair if it costs
the known items at most `MOST_LOSS` of NDCG@10 and of Recall@20. Training takes the largest fair trust whose lists,
judged by all held-out items, are within `MOST_LOSS` of the best, because items that are shown collect interactions. A
prediction is a mean over many items and thus shorter than most vectors, so the trust is usually above 1.

The limit is a quarter of a percent because the loss is smaller on the inner hold-out than on later data, by two to six
times on Amazon Beauty (docs/adr/0038-new-items.md). So small a loss is only seen with several thousand users.
"""

from collections.abc import Mapping
from dataclasses import replace

import msgspec
import numpy as np
from scipy.sparse import csr_array

from offline.descriptions import trust_new
from offline.evaluation.contenders import list_by_model
from offline.evaluation.quality import Task, make_task
from offline.evaluation.trials import Trial, unwritten
from offline.training import ModelSettings, fit_arrays
from recrank.artefact import Item
from recrank.model import RankingModel

TRUSTS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
MOST_LOSS = 0.0025
# Users to judge by, if the hold-out has as many.
MOST_USERS = 4000
# The share of items to hide is that of new items in the catalogue, within these limits.
_LEAST_SHARE, _MOST_SHARE = 0.05, 0.2
_SEED = 101


def choose_trust(
    task: Task, settings: ModelSettings, items: Mapping[str, Item], *, new_share: float
) -> tuple[float, list[Trial]]:
    """
    Return the best trust for *settings*, and a trial without new items followed by one per value, up to one that is not fair.

    Args:
        task: An inner hold-out.
        settings: All other settings.
        items: Attributes by item id.
        new_share: Share of new items in the catalogue.

    Cost: a training on the training part of *task* and a ranking for each value.
    """
    described = [item_id for item_id in task.ratings.item_ids if item_id in items and items[item_id].attributes]
    share = float(np.clip(new_share, _LEAST_SHARE, _MOST_SHARE))
    hidden = set(np.random.default_rng(_SEED).permutation(described)[: int(share * len(described))].tolist())
    inner = _without(task, hidden)
    known = len(inner.ratings.item_ids)
    new = [items[item_id] for item_id in described if item_id in hidden]
    arrays = fit_arrays(
        inner.records,
        inner.ratings,
        replace(settings, attributes=replace(settings.attributes, trust=1.0)),
        items=items,
        new=new,
    )
    item_ids = [*inner.ratings.item_ids, *(item.item_id for item in new)]
    held_known = _held_known(inner, known)
    judged, trials, found = np.diff(held_known.indptr) > 0, [], []
    for trust in (0.0, *TRUSTS):
        model = RankingModel(unwritten(trust_new(arrays, known, trust or 1.0), item_ids))
        if not trust:
            model.make_unavailable(item_ids[known:])
        lists = list_by_model(model, inner)
        trials.append(Trial.judge(f"new items, trust {trust:g}" if trust else "without new items", lists, inner.held))
        found.append(Trial.judge("known items", lists[judged], held_known[judged.nonzero()[0]]))
        if not _is_fair(found[-1], found[0]):
            break
    quality = [trial.relative_to(trials[0]) for trial in trials]
    fair = [n for n in range(1, len(trials)) if _is_fair(found[n], found[0])]
    best = max((quality[n] for n in fair), default=0.0)
    chosen = max((n for n in fair if quality[n] >= best - MOST_LOSS), default=1)
    return TRUSTS[chosen - 1], trials


def _is_fair(known: Trial, without: Trial) -> bool:
    least = 1 - MOST_LOSS
    return known.ndcg_10 >= least * without.ndcg_10 and known.recall_20 >= least * without.recall_20


def _without(task: Task, hidden: set[str]) -> Task:
    """Return *task* with the *hidden* items removed from its training part, for users that keep a history."""
    records = [
        msgspec.structs.replace(record, history=[item for item in record.history if item.item_id not in hidden])
        for record in task.records
    ]
    names = {column: item_id for item_id, column in task.columns.items()}
    ends = task.held.indptr
    held = {
        records[row].user_id: [names[column] for column in task.held.indices[ends[n] : ends[n + 1]]]
        for n, row in enumerate(task.users)
        if records[row].history
    }
    return make_task(records, held)


def _held_known(task: Task, known: int) -> csr_array:
    """Return the held-out items of *task* that are among its first *known* columns."""
    entries = task.held.tocoo()
    kept = entries.col < known
    return csr_array((entries.data[kept], (entries.row[kept], entries.col[kept])), shape=task.held.shape)
