import numpy as np
import pytest

from offline import search as searching
from offline.als import AlsSettings
from offline.evaluation.holdout import split_records
from offline.matrix import make_ratings
from offline.search import SearchTrial, search
from offline.training import ModelSettings, suggest
from recsys.records import HistoryItem, UserRecord


def records(*, timed: bool = True, weighted: bool = True, users: int = 60) -> list[UserRecord]:
    """Return users whose taste changed, so that their newest items are the most informative."""
    rng = np.random.default_rng(0)
    found = []
    for user in range(users):
        late = user % 2
        items = [*(rng.permutation(30)[:12] + 30 * (1 - late)), *(rng.permutation(30)[:12] + 30 * late)]
        history = [
            HistoryItem(f"i{item}", float(rng.integers(1, 9)) if weighted else 1.0, place * 1000 + 1 if timed else 0)
            for place, item in enumerate(items)
        ]
        found.append(UserRecord(f"u{user}", "unknown", history=history[::-1]))
    return found


def test_a_search_is_deterministic_and_starts_from_the_suggestion():
    """The same records give the same trials and choice, and the first trial uses the suggested settings."""
    first, second = search(records()), search(records())
    assert first == second
    assert first.trials[0].parameter == "suggested"
    assert first.trials[0].ndcg_10 > 0


def test_a_better_setting_is_chosen(monkeypatch):
    """The search replaces a suggestion with an excessive ridge and records the gain."""
    hopeless = ModelSettings(AlsSettings(factors=8, ridge=1e6, unobserved_weight=0.1))
    monkeypatch.setattr(searching, "suggest", lambda _: hopeless)
    monkeypatch.setattr(searching, "FACTORS", {"ridge": (1e-6,)})
    found = search(records(timed=False))
    assert found.settings.als.ridge == pytest.approx(1.0)
    assert found.metrics()["validation_ndcg_10"] > found.metrics()["validation_ndcg_10_suggested"]


def test_only_informative_parameters_are_searched():
    """Equal weights exclude the weight exponent from the search, and data without times excludes the half-life."""
    tried = {trial.parameter for trial in search(records(timed=False, weighted=False)).trials}
    assert tried == {"suggested", "ridge", "unobserved_weight", "popularity_exponent", "frequency_exponent"}


def test_the_outer_holdout_is_not_used(monkeypatch):
    """The search makes its hold-outs from the given records, so it never sees the items held out before."""
    training, held_out = split_records(records(), holdout="random", seed=7)
    seen: set[tuple[str, str]] = set()

    def spy(inner: list[UserRecord], **words: object) -> object:
        seen.update((each.user_id, item.item_id) for each in inner for item in each.history)
        return split_records(inner, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(searching, "split_records", spy)
    search(training)
    assert seen.isdisjoint({(user, item) for user, items in held_out.items() for item in items})
    assert seen == {(each.user_id, item.item_id) for each in training for item in each.history}


def test_trials_are_compared_by_relative_gains():
    """A gain in one measure must exceed the relative loss in the other, and a tie keeps the earlier trial."""
    reference = SearchTrial("suggested", 0, 0.2, 0.4)
    assert SearchTrial("ridge", 1, 0.22, 0.39).beats(reference, reference=reference)
    assert not SearchTrial("ridge", 1, 0.21, 0.36).beats(reference, reference=reference)
    assert not reference.beats(reference, reference=reference)
    nothing = SearchTrial("suggested", 0, 0.0, 0.0)
    assert SearchTrial("ridge", 1, 0.1, 0.0).beats(nothing, reference=nothing)


def test_too_little_data_keeps_the_suggestion():
    """With fewer than five items per user the search makes no trials."""
    few = [
        UserRecord(f"u{n}", "55+", history=[HistoryItem("a", 1.0, 5), HistoryItem(f"b{n}", 1.0, 5)]) for n in range(9)
    ]
    found = search(few)
    assert found.settings == suggest(make_ratings(few))
    assert found.trials == []
    assert found.metrics() == {}
