"""The commands of the README, typed as a newcomer types them."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.verbs import started, verb
from tests.running import CLIENT, ROOT
from tests.trained import write_csv

pytestmark = [pytest.mark.scenario, pytest.mark.may_block, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    state = tmp_path_factory.mktemp("state")
    with started(state) as port:
        yield state, port


def test_the_pipeline_answers(up):
    """The running pipeline answers the request of the README."""
    _, port = up
    answer = CLIENT.post(f"http://127.0.0.1:{port}", json={"user_id": "user_42", "top_k": 5})
    assert len(answer.json()["recommendations"]) == 5


def test_recommend_prints_titles(up):
    """The verb `recommend` prints titles and categories, and one sentence for an invalid argument."""
    state, port = up
    words = ("recommend", "user_42", "--port", str(port), "--state-dir", str(state), "--top-k")
    shown = verb(*words, "3").stdout
    assert len(shown.splitlines()) == 3
    assert "item_" in shown
    assert "(" in shown
    assert "$.top_k must be at most 100" in verb(*words, "300", status=1).stderr


def test_doctor_finds_no_fault(up):
    """Every line of doctor is ok for a healthy pipeline."""
    state, port = up
    report = verb("doctor", "--state-dir", str(state), "--port", str(port)).stdout
    assert all(line.startswith("ok") for line in report.splitlines()), report


def test_a_taken_port_is_an_error_before_the_training(tmp_path):
    """`up` ends with one line that names the taken port, and trains nothing."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = verb("up", "--detach", "--port", port, "--state-dir", str(tmp_path), status=1)
    assert f"port {port} is taken" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "current.json").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["up", "--port", "99999"], "'--port': must be 1 to 65535, not '99999'"),
        (["up", "--port"], "'--port' requires an argument"),
        (["fly"], "No such command 'fly'"),
        (["up", "--nope"], "No such option: --nope"),
        (["recommend", "user_42", "--url", "nope"], "is not a URL"),
    ],
)
def test_invalid_words_are_explained(words, says):
    """An unknown verb or an invalid value causes one sentence."""
    assert says in verb(*words, status=2).stderr


def test_a_missing_python_is_an_error(tmp_path):
    """The script reports that no Python is new enough."""
    for tool in ("bash", "dirname", "env", "cksum", "cat", "grep"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    copy = tmp_path / "project"
    copy.mkdir()
    (copy / "run.sh").write_text((ROOT / "run.sh").read_text())
    (copy / "requirements").mkdir()
    for file in ("requirements/local.txt", "pyproject.toml"):
        (copy / file).write_text("")
    ended = subprocess.run(
        ["bash", str(copy / "run.sh"), "up"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("Python 3.11 or newer is needed")


def test_users_of_a_file_are_served(tmp_path):
    """After training on a file, its users are recommended the items that they have not consumed."""
    rows = [f"u{user},i{(user % 4) * 10 + item},1.0,{1_700_000_000 + item}" for user in range(40) for item in range(8)]
    file = write_csv(tmp_path / "mine.csv", "user_id,item_id,weight,timestamp", rows)
    state = tmp_path / "state"
    verb("train", "--interactions", str(file), "--state-dir", str(state))
    with started(state) as port:
        answer = CLIENT.post(f"http://127.0.0.1:{port}", json={"user_id": "u5", "top_k": 24}).json()
        assert {each["item_id"] for each in answer["recommendations"]} == {
            f"i{cluster * 10 + item}" for cluster in (0, 2, 3) for item in range(8)
        }


def test_a_served_model_can_be_evaluated(held_out, tmp_path):
    """After training on four fifths no served list differs from the model's, and the verb draws a picture."""
    state = tmp_path / "state"
    shutil.copytree(held_out, state)
    with started(state, "--tls") as port:
        words = ("--via", f"https://127.0.0.1:{port}", "--state-dir", str(state), "--plot", str(tmp_path / "p.png"))
        report = json.loads(verb("evaluate", "--json", *words).stdout)
    assert report["differing_lists"] == 0
    assert report["rows"][-1]["model"] == "ials, served"
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_events_lead_to_a_new_served_model(up):
    """Events change features and histories, `train --from-store` makes a model of them, and an update serves it."""
    state, port = up
    place = ("--state-dir", str(state))
    urls = {
        name: verb("kn", "service", "describe", name, "-o", "url", *place).stdout.strip()
        for name in ("extract-features", "rank-items")
    }
    # Two items that are in no model are bought by the same hundred users.
    for number, item in enumerate(f"new_{n % 2}" for n in range(200)):
        headers = {"ce-specversion": "1.0", "ce-type": "dev.recsys.interaction.v1", "ce-source": "/e2e"}
        data = {"user_id": f"user_{number // 2 + 1}", "kind": "purchase", "item_id": item}
        answer = CLIENT.post(urls["extract-features"], headers=headers | {"ce-id": str(number)}, json=data)
        assert answer.status_code == 202

    query = {
        "features": {"age_group": "25-34", "avg_session_duration": 60, "total_purchases": 1, "engagement_score": 0.5},
        "history": ["new_0"],
        "top_k": 5,
    }
    before = CLIENT.post(urls["rank-items"], json=query).json()
    trained = verb("train", "--from-store", *place).stdout
    command = trained.partition("serve it: ./run.sh ")[2].split()
    verb(*command)
    after = CLIENT.post(urls["rank-items"], json=query).json()
    assert after["model"]["version"] != before["model"]["version"]
    assert after["model"]["version"] in trained
    assert after["items"][0]["item_id"] == "new_1"
    # A user who bought both is offered neither, and the pipeline still answers.
    shown = CLIENT.post(f"http://127.0.0.1:{port}", json={"user_id": "user_7", "top_k": 100}).json()["recommendations"]
    assert len(shown) == 100
    assert not {"new_0", "new_1"} & {each["item_id"] for each in shown}
