import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.hop.breaker import Breaker, BreakerLimits
from chassis.hop.retries import RetryBudget, RetryPolicy
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock(50.0)


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(BreakerLimits(failure_share=0.8, least_calls=5, open_s=0.3), clock=clock)


def admit(breaker: Breaker) -> int:
    ticket = breaker.admit()
    assert ticket is not None
    return ticket


def complete(breaker: Breaker, *, success: bool) -> None:
    breaker.note(admit(breaker), success=success)


def fail_calls(breaker: Breaker, times: int = 5) -> None:
    for _ in range(times):
        complete(breaker, success=False)


def test_the_breaker_opens_when_calls_keep_failing(breaker):
    """The breaker opens after five failed calls in a row, and not after four."""
    fail_calls(breaker, 4)
    assert breaker.state == "closed"
    fail_calls(breaker, 1)
    assert breaker.state == "open"
    assert breaker.admit() is None


def test_the_breaker_stays_closed_while_half_of_the_calls_fail(breaker):
    """The breaker stays closed when one of two instances is dead, because the other still serves."""
    for success in [True, False] * 50:
        complete(breaker, success=success)
    assert breaker.state == "closed"


def test_old_failures_are_forgotten(breaker, clock):
    """Failures older than two seconds do not count."""
    fail_calls(breaker, 4)
    clock.now += 2.1
    fail_calls(breaker, 4)
    assert breaker.state == "closed"
    clock.now += 1.1
    fail_calls(breaker, 1)
    assert breaker.state == "open"


def test_a_half_open_breaker_admits_one_probe(breaker, clock):
    """After the open period the breaker admits one call, and the success of that call closes it."""
    fail_calls(breaker)
    clock.now += 0.3
    assert breaker.state == "half-open"
    probe = admit(breaker)
    assert breaker.admit() is None
    breaker.note(probe, success=True)
    assert breaker.state == "closed"
    admit(breaker)


def test_a_failed_probe_reopens_the_breaker(breaker, clock):
    """A failed probe opens the breaker for another full period."""
    fail_calls(breaker)
    clock.now += 0.3
    complete(breaker, success=False)
    assert breaker.state == "open"
    clock.now += 0.3
    admit(breaker)


def test_an_abandoned_probe_admits_another(breaker, clock):
    """A probe that its caller cancelled decides nothing, so the breaker admits the next call as a probe."""
    fail_calls(breaker)
    clock.now += 0.3
    breaker.forget(admit(breaker))
    admit(breaker)


@pytest.mark.parametrize("success", [True, False])
def test_results_of_earlier_calls_are_ignored(breaker, clock, success):
    """The result of a call admitted before the breaker opened changes neither its state nor the probe in flight."""
    early = [admit(breaker) for _ in range(3)]
    fail_calls(breaker)
    breaker.note(early[0], success=success)
    clock.now += 0.3
    assert breaker.state == "half-open"
    probe = admit(breaker)
    breaker.note(early[1], success=success)
    breaker.forget(early[2])
    assert (breaker.state, breaker.admit()) == ("probing", None)
    breaker.note(probe, success=True)
    assert breaker.state == "closed"


def test_the_retry_budget_is_a_tenth_and_a_reserve():
    """In the long run one request in ten may be retried; a reserve covers quiet periods."""
    budget = RetryBudget(share=0.1, reserve=5)
    assert [budget.spend() for _ in range(7)] == [True] * 5 + [False] * 2
    spent = 0
    for _ in range(1000):
        budget.earn()
        spent += budget.spend()
    assert spent == pytest.approx(100, abs=1)


def test_the_retry_budget_is_bounded():
    """A thousand successful requests do not save up for a storm of retries."""
    budget = RetryBudget(share=0.5, reserve=1, most=2)
    for _ in range(1000):
        budget.earn()
    assert [budget.spend() for _ in range(3)] == [True, True, False]


def test_pauses_double_up_to_a_limit():
    """After the retries without a pause, each pause doubles up to the longest, and none follows the last attempt."""
    policy = RetryPolicy(attempts=6, at_once=1, base_s=0.01, most_s=0.03)
    assert [policy.pause_s(number, left_s=1, draw=lambda: 0.5) for number in range(1, 7)] == [
        0.0,
        0.01,
        0.02,
        0.03,
        0.03,
        None,
    ]


@given(
    attempt=st.integers(1, 15),
    left_s=st.floats(-1, 5),
    after_s=st.none() | st.floats(0, 5),
    drawn=st.floats(0, 1, exclude_max=True),
)
def test_a_pause_respects_the_deadline_and_retry_after(attempt, left_s, after_s, drawn):
    """A pause never extends past the deadline and never ends before Retry-After."""
    pause_s = RetryPolicy().pause_s(attempt, left_s=left_s, retry_after_s=after_s, draw=lambda: drawn)
    assert pause_s is None or (after_s or 0) <= pause_s < left_s
