import numpy as np

from offline.choice import choose
from offline.lengths import LENGTHS
from offline.matrix import make_ratings
from offline.return_weights import LEAST_GAIN
from offline.training import suggest
from recsys.records import HistoryItem, UserRecord

USERS = 120


def records(*, chained: bool, timed: bool = True) -> list[UserRecord]:
    """Return users with random items; if *chained*, the successor of each item follows it."""
    rng = np.random.default_rng(0)
    found = []
    for user in range(USERS):
        firsts = rng.permutation(60)[:8]
        items = np.stack([firsts, firsts + 60], axis=1).reshape(-1) if chained else rng.permutation(120)[:16]
        history = [
            HistoryItem(f"i{item}", 1.0, place * 1000 + 1 if timed else 0) for place, item in enumerate(items.tolist())
        ]
        found.append(UserRecord(f"u{user}", "unknown", history=history[::-1]))
    return found


def test_what_follows_what_is_found():
    """If the next item follows from the newest one, the directed neighbours of the newest item join the blend."""
    choice = choose(records(chained=True))
    blend = choice.settings.blend
    assert blend is not None
    assert blend.ordered
    assert blend.views[0].backward == 0
    assert blend.views[0].half_life == 1
    assert blend.lengths == (*LENGTHS, 16)
    assert {len(row) for row in blend.weights} == {3 + len(blend.views)}
    alone, blended = choice.trials[-2:]
    assert blended.ndcg_10 > 1.2 * alone.ndcg_10


def test_it_is_deterministic():
    """The same records give the same choice and the same trials."""
    assert choose(records(chained=True)) == choose(records(chained=True))


def test_every_length_has_a_source_that_scores_all_items():
    """Each row weighs the factors or popularity, so every list can be filled; neighbours need a history."""
    blend = choose(records(chained=True)).settings.blend
    assert blend is not None
    for length, row in zip(blend.lengths, blend.weights, strict=True):
        assert row[0] > 0 or row[1] > 0
        assert length > 0 or not any(row[3:])


def test_without_times_no_order_is_read_into_the_data():
    """For records without times, neither a half-life nor a direction of neighbours is chosen."""
    choice = choose(records(chained=True, timed=False))
    assert choice.settings.half_life == 0
    blend = choice.settings.blend
    assert blend is not None
    assert not blend.ordered
    assert [view.half_life for view in blend.views] == [0]


def test_times_do_not_count_for_items_drawn_at_random():
    """A random hold-out asks for any items of a history, so the order of the histories is ignored."""
    choice = choose(records(chained=True), ahead=False)
    assert choice.settings.half_life == 0


def test_too_few_users_to_judge_leave_the_suggestion():
    """With fewer than fifty users to judge by, the factors rank alone with the suggested settings."""
    few = records(chained=True)[:30]
    choice = choose(few)
    assert choice.settings == suggest(make_ratings(few))
    assert choice.trials == []


def test_what_does_not_gain_is_not_used():
    """For random items, the factors alone or popularity rank for longer histories."""
    choice = choose(records(chained=False))
    blend = choice.settings.blend
    alone, blended = choice.trials[-2:]
    assert blended.relative_to(alone) < 1 + LEAST_GAIN
    assert blend is None or blend.weights[-1][1:] == (0.0,) * (len(blend.weights[-1]) - 1)
