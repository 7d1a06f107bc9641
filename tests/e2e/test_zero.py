"""The zero mode: the first request to a pipeline without any instance gets a full answer."""

from pathlib import Path

import pytest

from tests.demo import DemoState
from tests.localkn.running import needs_envoy
from tools.bench.zero import is_full, services, wake_together, zero_mode

pytestmark = [pytest.mark.scenario, needs_envoy]

TRIALS = 3


def test_the_first_request_wakes_all_functions_and_gets_a_full_answer(demo_state: DemoState, tmp_path: Path) -> None:
    """Each time, one request starts all three functions, waits for them, and is not degraded."""
    demo_state.copy_to(tmp_path)
    with zero_mode(tmp_path):
        answers = [wake_together(tmp_path)[1] for _ in range(TRIALS)]
        cold = [
            revision["cold_start_s"] for service in services(tmp_path).values() for revision in service["revisions"]
        ]
    assert [is_full(answer) for answer in answers] == [True] * TRIALS, answers
    assert all(cold)
