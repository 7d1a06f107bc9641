"""The trust in new items: the largest one that costs the known items next to nothing."""

import numpy as np
import pytest

from offline.evaluation.holdout import split_records
from offline.evaluation.quality import make_task
from offline.evaluation.trials import Trial
from offline.training import suggest
from offline.trust import MOST_LOSS, TRUSTS, choose_trust
from recrank.artefact import Item
from tests.offline.tastes import KINDS, OF_A_KIND, make_records

ITEMS = {
    f"i{number:03}": Item(f"i{number:03}", attributes={"kind": (f"k{number // OF_A_KIND}",)})
    for number in range(KINDS * OF_A_KIND)
}


def choose(monkeypatch: pytest.MonkeyPatch, **losses: tuple[float, float, float]) -> tuple[float, list[str]]:
    """
    Choose with planted figures.

    Args:
        monkeypatch: The fixture.
        losses: By trust: how much NDCG@10 and Recall@20 the known items lose, and how much all items gain.
    """
    trusts = iter([0.0, *TRUSTS])
    state = {"trust": 0.0}

    def judge(what: str, lists: object, held: object) -> Trial:
        if what != "known items":
            state["trust"] = next(trusts)
        lost, missed, gained = losses.get(f"at_{state['trust']:g}".replace(".", "_"), (0.0, 0.0, 0.0))
        if what == "known items":
            return Trial(what, 0.1 * (1 - lost), 0.2 * (1 - missed))
        return Trial(what, 0.1 * (1 + gained), 0.2 * (1 + gained))

    monkeypatch.setattr(Trial, "judge", judge)
    records = make_records(days=12)
    task = make_task(*split_records(records, holdout="temporal"))
    trust, trials = choose_trust(task, suggest(task.ratings), ITEMS, new_share=0.1)
    return trust, [trial.what for trial in trials]


def test_the_largest_trust_is_taken_that_costs_nothing(monkeypatch):
    """If no trust costs known items anything, new items get the largest."""
    trust, tried = choose(monkeypatch)
    assert trust == TRUSTS[-1]
    assert tried == ["without new items", *(f"new items, trust {each:g}" for each in TRUSTS)]


@pytest.mark.parametrize("loss", [(2 * MOST_LOSS, 0.0, 0.0), (0.0, 2 * MOST_LOSS, 0.0)])
def test_a_loss_of_either_measure_ends_the_search(monkeypatch, loss):
    """A trust that costs known items more than the limit is not taken, and no larger one is tried."""
    trust, tried = choose(monkeypatch, at_2=loss)
    assert trust == 1.75
    assert tried[-1] == "new items, trust 2"


def test_a_trust_that_finds_less_is_not_taken(monkeypatch):
    """A trust whose lists find less than those of a smaller one is not taken, even if known items lose nothing."""
    trust, _ = choose(monkeypatch, at_1_25=(0.0, 0.0, 0.02), at_1_5=(0.0, 0.0, 0.019))
    assert trust == 1.5


def test_a_loss_at_the_first_trust_leaves_the_smallest(monkeypatch):
    """New items keep their predictions as they are if even these cost the known items something."""
    assert choose(monkeypatch, at_1=(0.1, 0.1, 0.0))[0] == TRUSTS[0]


def test_new_items_are_found_without_planted_figures():
    """On real lists, the new items are found, and the trial without them finds none of them."""
    task = make_task(*split_records(make_records(days=12), holdout="temporal"))
    trust, trials = choose_trust(task, suggest(task.ratings), ITEMS, new_share=0.1)
    assert trust in TRUSTS
    assert max(trial.recall_20 for trial in trials[1:]) > trials[0].recall_20
    assert np.isfinite([trial.ndcg_10 for trial in trials]).all()
