"""An instance of rank_items as a process, with its model in an object store."""

import os
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from localkn.processes import free_port
from recrank.artefact import write_artefact
from recrank.bucket import Bucket
from recrank.places import BucketPlace
from recsys.features import UNKNOWN_FEATURES
from tests.delivery.slow_store import slow_store
from tests.object_store import ObjectStore
from tests.running import CLIENT, ROOT, Running, killed_at_the_end, running, shell_command
from tests.waiting import LIMIT_S, eventually
from tools.bench.batching import make_artefact

pytestmark = [pytest.mark.scenario, pytest.mark.may_block]

PLACE = BucketPlace("models", "process")
REQUEST = {"features": UNKNOWN_FEATURES, "history": [], "top_k": 3}


def write(folder: Path, *, items: int) -> Path:
    """Write an artefact with a number of items, from which its version follows."""
    made = make_artefact(items=items, dims=8)
    write_artefact(folder, name="test", arrays=made.arrays, items=made.items, training={}, metrics={})
    return folder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """Return an object store of the test's own, which is not yet running."""
    own = ObjectStore(tmp_path / "buckets", free_port())
    (own.folder / PLACE.bucket).mkdir(parents=True)
    for name, value in own.env.items():
        monkeypatch.setenv(name, value)
    return own


def served(instance: Running) -> str:
    answer = instance.post(msgspec.to_builtins(REQUEST))
    assert answer.status_code == 200, answer.text
    version: str = answer.json()["model"]["version"]
    return version


def test_an_instance_follows_the_place_and_outlives_the_store(store, tmp_path):
    """A running instance serves a publication. While the store is down, it answers, and a metric shows the outage."""
    metrics_port = free_port()

    def is_behind() -> bool:
        return "\nrecsys_model_behind 1" in CLIENT.get(f"http://127.0.0.1:{metrics_port}/metrics").text

    with ExitStack() as serving:
        serving.enter_context(store.serving())
        first = Bucket(PLACE).publish(write(tmp_path / "first", items=20)).version
        env = {"MODEL_PATH": str(PLACE), "METRICS_PORT": str(metrics_port)}
        with running("rank_items", env) as instance:
            assert served(instance) == first
            second = Bucket(PLACE).publish(write(tmp_path / "second", items=30)).version
            eventually(lambda: served(instance) == second)
            assert not is_behind()
            serving.close()
            eventually(lambda: served(instance) == second and is_behind())
            assert "model_place_unavailable" in instance.log()
            assert instance.stop() == 0


def test_an_instance_ends_during_a_slow_download():
    """SIGTERM ends an instance whose first model would take months to arrive."""
    with slow_store() as store:
        env = {
            "AUTH": "off",
            "METRICS_PORT": "0",
            "PORT": str(free_port()),
            "HOST": "127.0.0.1",
            "MODEL_PATH": str(PLACE),
        }
        command = shell_command("rank_items")
        with killed_at_the_end(subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env, **store.env})) as process:
            assert store.downloading.wait(LIMIT_S)
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT_S) == 0
