"""Complete rollouts with real processes: three functions behind localkn's ingress, updated by `./run.sh rollout`."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from offline.demo import make_demo
from offline.state import StateDirectory
from offline.training import train
from tests.demo import DemoState
from tests.knative.command_lines import parse
from tests.localkn.running import Running, needs_envoy
from tests.running import ROOT
from tests.waiting import eventually
from tools.rollout.trials import TrialClient

pytestmark = [needs_envoy, pytest.mark.scenario, pytest.mark.alone, pytest.mark.may_block, pytest.mark.timeout(300)]

SERVICE = "rank-items"
# Loose enough for a busy machine: the faults are 5 % errors, a threefold latency and another ranking.
WATCH = ["--steps", "5,25,100", "--max-error-rate", "0.1%", "--max-p99-ms", "5000", "--max-slowdown", "2",
         "--min-overlap", "0.5", "--step-duration", "1", "--requests", "40"]  # fmt: skip


@dataclass
class Pipeline:
    """The running pipeline that the tests of this module share."""

    running: Running
    folder: Path

    def rollout(self, *flags: str) -> tuple[int, dict[str, Any], str]:
        """Run a rollout and return its exit status, its report and its output."""
        done = subprocess.run(self.command(*flags), cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode in {0, 1}, done.stderr
        path = Path(done.stdout.rpartition("report: ")[2].strip())
        report = json.loads(path.with_suffix(".json").read_text())
        for reason in report["reasons"]:
            assert f"- {reason}" in path.read_text()
        return done.returncode, report, done.stdout + done.stderr

    def command(self, *flags: str) -> list[str]:
        place = ["--state-dir", str(self.folder)]
        return [sys.executable, "-m", "tools.cli", "rollout", SERVICE, *place, *WATCH, *flags]

    def serving(self) -> dict[str, int]:
        """Return the revisions that have traffic, with their shares."""
        revisions = self.running.status(SERVICE)["revisions"]
        assert not any(each["tags"] for each in revisions)
        return {each["name"]: each["traffic_percent"] for each in revisions if each["traffic_percent"]}

    def targets(self) -> list[dict[str, Any]]:
        """`spec.traffic`, as kn shows it."""
        described = self.running.kn("service", "describe", SERVICE, "-o", "json")
        targets: list[dict[str, Any]] = json.loads(described.stdout)["spec"].get("traffic") or []
        return targets or [{"latestRevision": True, "percent": 100}]


@pytest.fixture(scope="module")
def pipeline(demo_state: DemoState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Start the pipeline with demo data, a ranker that takes 30 ms per batch, and an additional faulty image."""
    folder = tmp_path_factory.mktemp("state")
    demo_state.copy_to(folder)
    state = StateDirectory(folder)
    current = state.current()
    assert current
    commands = yaml.safe_load((ROOT / "knative/overlays/local/commands.yaml").read_text())
    commands["root"] = str(ROOT)
    commands["images"]["rank-items:faulty"] = {
        "command": ["python", "tests/rollout/faulty.py", "--source", "functions/rank_items/main.py"]
    }
    (folder / "commands.yaml").write_text(yaml.safe_dump(commands))
    running = Running(folder)
    # Use the folder that `./run.sh` uses.
    running.state = type(running.state)(folder / "platform")
    running.manifests, running.commands = ROOT / "knative/overlays/local", folder / "commands.yaml"
    settings = {
        "REQUEST_TIMEOUT_S": "5",
        "extract-features:FEATURE_STORE_URL": state.store_url(current),
        "rank-items:MODEL_PATH": state.model_path(current),
        "rank-items:SIMULATED_LATENCY_S": "0.03",
        "recommend:POPULAR_LIST_PATH": folder / "popular.json",
    }
    overrides = [word for name, value in settings.items() for word in ("--env-override", f"{name}={value}")]
    started = running.up(*overrides)
    assert started.returncode == 0, started.stderr
    yield Pipeline(running, folder)
    running.run("down")
    assert running.processes() == []


@contextmanager
def load(port: int, callers: int = 3) -> Iterator[list[str]]:
    """Request recommendations continuously and yield the list of faults."""
    ended, faults, asked = threading.Event(), list[str](), list[int]()

    def ask(number: int) -> None:
        with closing(TrialClient(f"http://127.0.0.1:{port}")) as client:
            while not ended.wait(0.01):
                answer = client.ask(json.dumps({"user_id": f"user_{len(asked) % 900 + 1}", "top_k": 5}).encode())
                asked.append(number)
                if answer.fault:
                    faults.append(answer.fault)

    threads = [threading.Thread(target=ask, args=[number]) for number in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield faults
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert {*asked} == {*range(callers)}


def test_a_good_candidate_takes_over_under_load(pipeline):
    """The candidate takes every step without a failed request, and the Service then follows its latest revision."""
    (before,) = pipeline.serving()
    with load(pipeline.running.port) as faults:
        status, report, said = pipeline.rollout("--env", "MAX_QUEUE_SIZE=300")
    assert (status, report["promoted"], report["reasons"]) == (0, True, []), said
    assert faults == []
    assert [step["share"] for step in report["seen"]] == [0, 5, 25, 100]
    assert report["seen"][0]["overlap"] == report["seen"][0]["correlation"] == 1.0
    assert report["seen"][-1]["live"]["requests"] >= 40
    assert report["current"] == before
    assert pipeline.serving() == {report["candidate"]: 100}
    # The real kn accepts the commands that localkn received.
    assert [parse(command).verb for command in report["commands"]] == ["service update"] * 5
    (spec,) = [s for s in json.loads(pipeline.running.kn("service", "list", "-o", "json").stdout)["items"]
               if s["metadata"]["name"] == SERVICE]  # fmt: skip
    assert spec["spec"]["traffic"] == [{"latestRevision": True, "percent": 100}]


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a model on mirrored histories, so that it ranks very differently."""
    folder, demo = tmp_path_factory.mktemp("model"), make_demo(seed=8)
    mirrored = [
        replace(
            record, history=[replace(each, item_id=f"item_{999 - int(each.item_id[5:])}") for each in record.history]
        )
        for record in demo.records
    ]
    train(mirrored, items={}, folder=folder, dataset="mirrored")
    return folder


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--image", "rank-items:faulty"], "shadow requests failed"),
        (["--env", "SIMULATED_LATENCY_S=0.09"], "times the present one"),
        (["--env", "MODEL_PATH={other_model}"], "overlap of the top-k is"),
        (["--env", "MODEL_PATH=/nowhere", "--wait-timeout", "30"], "failed"),
    ],
    ids=["5 % errors", "three times slower", "ranks differently", "never ready"],
)
def test_a_bad_candidate_is_rolled_back_within_one_step(pipeline, other_model, flags, reason):
    """A bad candidate gets no traffic, the earlier revision keeps all of it, and the report names the reason."""
    before = pipeline.targets()
    status, report, said = pipeline.rollout(*(flag.format(other_model=other_model) for flag in flags))
    assert (status, report["promoted"]) == (1, False), said
    assert any(reason in each for each in report["reasons"]), report["reasons"]
    assert len(report["seen"]) <= 1
    assert pipeline.targets() == before
    assert list(pipeline.serving().values()) == [100]
    assert report["candidate"] not in pipeline.serving()
    # The template is restored too, so the next update does not start from the failed one.
    service = json.loads(pipeline.running.kn("service", "describe", SERVICE, "-o", "json").stdout)
    (container,) = service["spec"]["template"]["spec"]["containers"]
    settings = {each["name"]: each.get("value", "") for each in container["env"]}
    assert (container["image"], settings["SIMULATED_LATENCY_S"]) == ("rank-items", "0.03")
    assert Path(settings["MODEL_PATH"]).is_relative_to(pipeline.folder)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda s: s.name)
def test_an_interrupted_rollout_leaves_the_traffic_as_it_was(pipeline, ending):
    """
    A rollout that is interrupted, stopped or loses its terminal restores the Service and writes a report.

    After SIGKILL the next rollout restores the Service before it begins.
    """
    before = pipeline.targets()
    process = subprocess.Popen(
        pipeline.command("--env", f"MAX_QUEUE_SIZE={300 + ending}", "--step-duration", "60"),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    assert "making the candidate" in process.stdout.readline()
    eventually(lambda: any(revision["tags"] for revision in pipeline.running.status(SERVICE)["revisions"]))
    os.killpg(process.pid, ending)
    if ending is not signal.SIGKILL:
        os.killpg(process.pid, ending)
    said = process.communicate()[0]
    assert "Traceback" not in said
    if ending is signal.SIGKILL:
        assert pipeline.targets() != before
        status, report, said = pipeline.rollout("--image", "nowhere")
        assert "an earlier rollout was killed; restoring" in said
        assert (status, report["promoted"]) == (1, False)
    else:
        assert process.returncode == 130
        assert "rolling back" in said
        report = json.loads(Path(said.rpartition("report: ")[2].strip()).with_suffix(".json").read_text())
        assert (report["reasons"], report["interrupted"]) == (["interrupted"], True)
    assert pipeline.targets() == before
    assert list(pipeline.serving().values()) == [100]


def test_divided_traffic_is_refused(pipeline):
    """A rollout refuses a Service whose traffic is divided and changes nothing."""
    pipeline.running.kn("service", "update", SERVICE, "--env", "MAX_QUEUE_SIZE=320")
    names = [each["name"] for each in pipeline.running.status(SERVICE)["revisions"]]
    split = ["--traffic", f"{names[0]}=40", "--traffic", f"{names[-1]}=60"]
    assert pipeline.running.kn("service", "update", SERVICE, *split).returncode == 0
    done = subprocess.run(pipeline.command("--env", "A=1"), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is divided already" in done.stderr
