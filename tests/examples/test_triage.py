"""A pipeline of another domain on the same chassis and platform: two models in parallel, then a combiner."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.triage.teams import combine
from examples.triage.words import Label, train
from localkn import control
from localkn.envoy import executable
from localkn.processes import free_port
from localkn.state import PlatformDirectory
from tests.running import CLIENT
from tests.waiting import LIMIT_S

EXAMPLE = Path(__file__).parents[2] / "examples/triage"
TEXTS = [
    "My card was charged twice, refund me today",
    "When will my parcel arrive",
    "The app crashes and I lost my work",
    "entirely unseen vocabulary",
]


def test_a_batch_equals_single_texts():
    """The classifier gives a text the same label and probability alone and in a batch."""
    model = train("topic")
    assert model.classify(TEXTS) == [label for text in TEXTS for label in model.classify([text])]


def test_the_models_learn_from_the_messages():
    """Both classifiers give new messages the right labels."""
    assert [label.name for label in train("topic").classify(TEXTS[:3])] == ["billing", "delivery", "technical"]
    assert [label.name for label in train("urgency").classify(TEXTS[:3])] == ["high", "low", "high"]


def test_a_missing_model_degrades_the_answer():
    """A message without a topic goes to the front desk, and a message without an urgency counts as urgent."""
    billing, low = Label("billing", 0.9), Label("low", 0.8)
    assert combine(billing, low) == {"team": "accounts", "priority": 2, "topic": billing, "urgency": low}
    assert combine(None, low)["team"] == "front-desk"
    assert combine(billing, None)["priority"] == 1
    assert combine(None, None)["degraded"] == ["topic", "urgency"]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Run the example from its manifests with localkn; yield its address and state directory."""
    state, port = tmp_path_factory.mktemp("triage") / "state", free_port()
    manifests = ["--manifests", str(EXAMPLE / "knative/services.yaml")]
    manifests += ["--commands", str(EXAMPLE / "knative/commands.yaml")]
    direct = [] if executable() else ["--direct"]
    localkn = [sys.executable, "-m", "localkn"]
    up = [*localkn, "up", "--state-dir", str(state), "--port", str(port), "--detach", *manifests, *direct]
    try:
        subprocess.run(up, check=True, timeout=LIMIT_S)
        yield f"http://127.0.0.1:{port}", state
    finally:
        subprocess.run([*localkn, "down", "--state-dir", str(state)], check=True, timeout=LIMIT_S)


def ask(url: str, text: str) -> Any:
    answer = CLIENT.post(url, json={"text": text})
    return answer.json() | {"status": answer.status_code}


def test_the_example_answers_from_its_manifests(platform):
    """The answer to a message is a team and a priority, and the answer to an invalid message its faults."""
    url, _ = platform
    answer = ask(url, TEXTS[0])
    assert (answer["team"], answer["priority"], answer["status"]) == ("accounts", 1, 200)
    assert "degraded" not in answer
    bad = ask(url, "")
    assert (bad["status"], bad["errors"][0]["path"]) == (422, "$.text")


def test_a_killed_model_is_replaced(platform):
    """Answers are degraded while a killed model is missing, and complete after its replacement."""
    url, state = platform
    topic = control.call(PlatformDirectory(state).socket("control"), "status")["services"]["topic"]
    os.kill(topic["revisions"][0]["instances"][0]["pid"], signal.SIGKILL)
    answer = ask(url, TEXTS[0])
    while "degraded" in answer:
        assert answer["team"] == "front-desk"
        answer = ask(url, TEXTS[0])
    assert answer["team"] == "accounts"
