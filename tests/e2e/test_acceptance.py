"""`./run.sh acceptance` on the local platform, with the checks that it makes on a cluster."""

import json
from pathlib import Path

import pytest

from tests.demo import DemoState
from tests.e2e.verbs import started, verb
from tools.acceptance.checks import FUNCTIONS
from tools.cli.releases import Check

pytestmark = [pytest.mark.scenario, pytest.mark.alone, pytest.mark.may_block, pytest.mark.timeout(400)]


def test_the_local_pipeline_passes_acceptance(demo_state: DemoState, tmp_path: Path):
    """
    Answers, events, scaling, updates and killed instances under load pass every check.

    Each function has two instances, because the local platform has no activator that holds requests while the only
    instance restarts. The window of the autoscaler stays at a minute: with a short one, it may scale in when an
    instance is ended, which then gets no replacement.
    """
    state = tmp_path / "state"
    demo_state.copy_to(state)
    with started(state, "--simulate-latency"):
        for service in FUNCTIONS:
            verb("kn", "service", "update", service, "--scale-min", "2", "--state-dir", str(state))
        found = json.loads(verb("acceptance", "--json", "--seconds", "20", "--state-dir", str(state)).stdout)
    assert [finding["check"] for finding in found] == list(Check)
    assert [finding for finding in found if not finding["holds"]] == []
