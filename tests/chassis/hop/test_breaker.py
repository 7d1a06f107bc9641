import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.hop.breaker import Breaker, BreakerLimits
from chassis.hop.retries import RetryBudget, RetryPolicy


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(BreakerLimits(failure_share=0.8, least_calls=5, open_s=0.3), clock=clock)


def admitted(breaker: Breaker) -> int:
    ticket = breaker.admit()
    assert ticket is not None
    return ticket


def end(breaker: Breaker, *, success: bool) -> None:
    breaker.note(admitted(breaker), success=success)


def fail(breaker: Breaker, times: int = 5) -> None:
    for _ in range(times):
        end(breaker, success=False)


def test_it_opens_when_calls_keep_failing(breaker):
    """Five failures in a row are enough; fewer say nothing."""
    fail(breaker, 4)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"
    assert breaker.admit() is None


def test_half_of_the_calls_failing_leaves_it_closed(breaker):
    """One dead instance of two must not close the way to the other."""
    for success in [True, False] * 50:
        end(breaker, success=success)
    assert breaker.state == "closed"


def test_old_failures_are_forgotten(breaker, clock):
    """What happened more than two seconds ago does not count."""
    fail(breaker, 4)
    clock.now += 2.1
    fail(breaker, 4)
    assert breaker.state == "closed"
    clock.now += 1.1
    fail(breaker, 1)
    assert breaker.state == "open"


def test_one_probe_at_a_time(breaker, clock):
    """After a while one call is let through, and its success closes the breaker."""
    fail(breaker)
    clock.now += 0.3
    assert breaker.state == "half-open"
    probe = admitted(breaker)
    assert breaker.admit() is None
    breaker.note(probe, success=True)
    assert breaker.state == "closed"
    admitted(breaker)


def test_a_failed_probe_opens_it_again(breaker, clock):
    """A probe that fails costs another pause."""
    fail(breaker)
    clock.now += 0.3
    end(breaker, success=False)
    assert breaker.state == "open"
    clock.now += 0.3
    admitted(breaker)


def test_an_abandoned_probe_makes_room_for_another(breaker, clock):
    """A probe whose caller went away says nothing."""
    fail(breaker)
    clock.now += 0.3
    breaker.forget(admitted(breaker))
    admitted(breaker)


@pytest.mark.parametrize("success", [True, False])
def test_late_news_of_calls_from_before(breaker, clock, success):
    """Calls admitted before it opened change nothing, however they end: not its state, and not that one probe is out."""
    early = [admitted(breaker) for _ in range(3)]
    fail(breaker)
    breaker.note(early[0], success=success)
    clock.now += 0.3
    assert breaker.state == "half-open"
    probe = admitted(breaker)
    breaker.note(early[1], success=success)
    breaker.forget(early[2])
    assert (breaker.state, breaker.admit()) == ("half-open", None)
    breaker.note(probe, success=True)
    assert breaker.state == "closed"


def test_the_budget_is_a_tenth_and_a_reserve():
    """Over time one request in ten may be tried again, after a reserve for quiet times."""
    budget = RetryBudget(share=0.1, reserve=5)
    assert [budget.spend() for _ in range(7)] == [True] * 5 + [False] * 2
    spent = 0
    for _ in range(1000):
        budget.earn()
        spent += budget.spend()
    assert spent == pytest.approx(100, abs=1)


def test_the_budget_is_not_saved_beyond_its_bound():
    """A million good requests do not pay for a storm of retries."""
    budget = RetryBudget(share=0.5, reserve=1, most=2)
    for _ in range(1000):
        budget.earn()
    assert [budget.spend() for _ in range(3)] == [True, True, False]


def test_pauses_grow_and_end():
    """Pauses double, and after the last attempt there is none."""
    policy = RetryPolicy(attempts=3, base_s=0.01)
    assert policy.pause_s(1, left_s=1, draw=lambda: 0.5) == 0.01
    assert policy.pause_s(2, left_s=1, draw=lambda: 0.5) == 0.02
    assert policy.pause_s(3, left_s=1) is None


@given(
    attempt=st.integers(1, 4),
    left_s=st.floats(-1, 5),
    after_s=st.none() | st.floats(0, 5),
    drawn=st.floats(0, 1, exclude_max=True),
)
def test_a_pause_fits_the_time_left_and_the_servers_wish(attempt, left_s, after_s, drawn):
    """Whatever is drawn: never beyond the deadline, never before Retry-After."""
    pause_s = RetryPolicy().pause_s(attempt, left_s=left_s, retry_after_s=after_s, draw=lambda: drawn)
    assert pause_s is None or (after_s or 0) <= pause_s < left_s
