"""The next action of a rollout."""

from dataclasses import replace

import pytest

from tools.rollout.comparison import AnswerFigures, Comparison
from tools.rollout.decisions import CandidateLimits, Promote, RollBack, Rollout, Shift

FINE = AnswerFigures(requests=200, faults=0, error_rate=0.0, p50_ms=10.0, p99_ms=30.0)
NONE = AnswerFigures(0, 0, 0.0, 0.0, 0.0)
LIMITS = CandidateLimits(max_error_rate=0.01, max_p99_ms=100.0, max_slowdown=1.5, min_overlap=0.8, min_correlation=0.5)


def comparison(share: int, **changes: object) -> Comparison:
    found = Comparison(share, FINE, FINE, FINE if share else NONE, FINE, overlap=0.9, correlation=0.7, fault=None)
    return replace(found, **changes)  # type: ignore[arg-type]


def failing(faults: int) -> AnswerFigures:
    return replace(FINE, faults=faults, error_rate=faults / FINE.requests)


def test_a_good_candidate_passes_every_step():
    """The candidate goes from shadow requests to all traffic and is then promoted."""
    rollout = Rollout([5, 25, 100], LIMITS)
    actions = [rollout.begin()] + [rollout.after(comparison(share)) for share in (0, 5, 25, 100)]
    assert actions == [Shift(0), Shift(5), Shift(25), Shift(100), Promote()]
    assert [each.share for each in rollout.seen] == [0, 5, 25, 100]


@pytest.mark.parametrize("share", [0, 5, 25, 100])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"candidate": failing(3), "fault": "status 500"}, "3 of 200 shadow requests failed (1.50%, limit 1.00%), for"),
        ({"live": failing(3)}, "3 of 200 live requests failed"),
        ({"candidate": replace(FINE, p99_ms=101.0)}, "p99 of shadow requests is 101 ms (limit 100 ms)"),
        ({"live": replace(FINE, p99_ms=150.0)}, "p99 of live requests is 150 ms"),
        ({"candidate": replace(FINE, p50_ms=30.0)}, "its median is 3.0 times the present one, 30 instead of 10 ms"),
        ({"overlap": 0.79}, "overlap of the top-k is 0.790 (limit 0.8)"),
        ({"overlap": None}, "overlap of the top-k is unknown"),
        ({"correlation": 0.2}, "rank correlation is 0.200 (limit 0.5)"),
    ],
)
def test_a_broken_limit_rolls_back_at_that_step(share, changes, reason):
    """Any broken limit at any step causes a rollback that names the reason."""
    rollout = Rollout([5, 25, 100], LIMITS)
    for before in (each for each in (0, 5, 25, 100) if each < share):
        assert isinstance(rollout.after(comparison(before)), Shift)
    action = rollout.after(comparison(share, **changes))
    assert isinstance(action, RollBack)
    (found,) = action.reasons
    assert found.startswith(reason)


def test_a_figure_at_the_limit_is_accepted():
    """A figure equal to its limit does not break it."""
    within = {"candidate": replace(failing(2), p50_ms=15.0, p99_ms=100.0), "overlap": 0.8, "correlation": 0.5}
    assert Rollout([100], LIMITS).after(comparison(0, **within)) == Shift(100)


def test_figures_without_a_limit_are_ignored():
    """Without limits, a new model may rank differently and take longer."""
    different = {"overlap": 0.0, "correlation": -1.0, "candidate": replace(FINE, p99_ms=9000.0)}
    assert Rollout([100], CandidateLimits()).after(comparison(0, **different)) == Shift(100)


def test_load_that_moves_to_the_candidate_is_not_slowness():
    """A candidate with all the traffic is compared with the present revision's time when it had all the traffic."""
    rollout, busy = Rollout([100], LIMITS), replace(FINE, p50_ms=20.0)
    rollout.after(comparison(0, current=busy))
    assert rollout.after(comparison(100, candidate=busy)) == Promote()


def test_a_small_difference_is_not_slowness():
    """A median of 2.5 ms instead of 1 ms breaks no limit, although it is more than twice as long."""
    quick = {"current": replace(FINE, p50_ms=1.0), "candidate": replace(FINE, p50_ms=2.5)}
    assert Rollout([100], LIMITS).after(comparison(0, **quick)) == Shift(100)


def test_a_step_can_fail_before_it_ends():
    """A step is hopeless as soon as the remaining requests cannot bring it within the limit."""
    rollout = Rollout([100], LIMITS)
    assert [rollout.hopeless(faults, planned=200) for faults in (0, 2, 3)] == [False, False, True]


@pytest.mark.parametrize("steps", [[], [5, 5, 100], [25, 5, 100], [0, 100], [5, 25]])
def test_steps_must_rise_to_100(steps):
    """Steps in any other order are refused before anything changes."""
    with pytest.raises(ValueError, match="steps must rise"):
        Rollout(steps, LIMITS)
