"""`./run.sh acceptance` against a pipeline of this machine: what a cluster is asked, asked here."""

import json
from pathlib import Path

import pytest

from tests.e2e.verbs import assert_none_left, verb
from tests.running import take_port

pytestmark = [pytest.mark.e2e, pytest.mark.may_block, pytest.mark.timeout(400)]


def test_the_pipeline_is_accepted(tmp_path: Path):
    """Answers, events, scaling out and in, updates and ended instances under load: all of it holds, nothing fails."""
    state = tmp_path / "state"
    verb("up", "--detach", "--simulate-latency", "--port", str(take_port()), "--state-dir", str(state))
    try:
        found = json.loads(verb("acceptance", "--json", "--seconds", "20", "--state-dir", str(state)).stdout)
    finally:
        verb("down", "--state-dir", str(state))
    assert [finding["check"] for finding in found] == [
        "ready",
        "answer",
        "interaction",
        "reply",
        "scale",
        "update",
        "end",
    ]
    assert [finding for finding in found if not finding["holds"]] == []
    assert_none_left(state)
