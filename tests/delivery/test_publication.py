"""Training, retraining and the loop publish to an object store."""

from pathlib import Path
from typing import Any

import pytest

from offline.delivery import deliver
from offline.retraining import main as retrain
from offline.state import StateDirectory
from recrank.bucket import Bucket
from recrank.places import BucketPlace
from tests.object_store import ObjectStore
from tests.offline.tastes import choose_nothing, put_changed
from tools import loop
from tools.cli.verbs import main as run_verb

pytestmark = pytest.mark.may_block


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateDirectory:
    choose_nothing(monkeypatch)
    return put_changed(tmp_path / "state")


def published(place: BucketPlace) -> str:
    return Bucket(place).pointer()[1].version


def current(state: StateDirectory) -> Path:
    return state.model_path(state.require_current())


def test_a_training_publishes_the_model(state, object_store, capsys):
    """`train --to` names both places; a store that refuses leaves the trained model, and says that it is not published."""
    words = ["train", "--from-store", "--state-dir", str(state.folder), "--to"]
    assert run_verb([*words, "s3://models/train"]) == 0
    version = published(BucketPlace("models", "train"))
    said = capsys.readouterr().out
    assert current(state).name == f"2-{version}"
    assert f"MODEL_PATH=s3://models/train follows it, MODEL_PATH=s3://models/train?version={version} stays" in said
    assert run_verb([*words, "s3://nothing-here/train"]) == 1
    said = capsys.readouterr().err
    assert "is trained, but not published: s3://nothing-here: no such bucket" in said
    assert current(state).name.startswith("3-")


@pytest.mark.parametrize(("url", "reason"), [
    ("models/train", "names no bucket"), ("s3://models/train?version=0123456789ab", "leave out ?version="),
])  # fmt: skip
def test_a_wrong_place_is_refused_before_the_training(state, capsys, url, reason):
    """Neither verb trains if the place is wrong."""
    before = current(state)
    assert run_verb(["train", "--from-store", "--state-dir", str(state.folder), "--to", url]) == 1
    assert reason in capsys.readouterr().err
    assert run_verb(["loop", "--once", "--state-dir", str(state.folder), "--to", url]) == 1
    assert reason in capsys.readouterr().err
    assert retrain(["--state-dir", str(state.folder), "--to", url], env={"FEATURE_STORE_URL": "sqlite:///x"}) == 1
    assert reason in capsys.readouterr().err
    assert current(state) == before


def test_the_job_compares_with_the_published_model(state, object_store, tmp_path, capsys):
    """
    A job without a volume takes the model in the store as the one to improve on, and publishes the better one. A further
    run finds too little new.
    """
    place = BucketPlace("models", "job")
    serving = current(state)
    deliver(serving, place)
    env = {"FEATURE_STORE_URL": state.store_url(state.require_current())}
    for run in ("one", "two"):
        words = ["--state-dir", str(tmp_path / run), "--fewest", "100", "--to", str(place)]
        assert retrain(words, env=env) == 0
    said = capsys.readouterr().out
    assert "NDCG" in said
    assert f"published: {place}?version={published(place)}" in said
    assert said.rstrip().endswith("waiting for 100")
    assert current(StateDirectory(tmp_path / "one")).name == f"2-{published(place)}"


def test_the_job_publishes_the_first_model(state, object_store, tmp_path):
    """In an empty place there is nothing to compare with."""
    env = {"FEATURE_STORE_URL": state.store_url(state.require_current())}
    assert retrain(["--state-dir", str(tmp_path / "job"), "--to", "s3://models/empty"], env=env) == 0
    assert current(StateDirectory(tmp_path / "job")).name == f"1-{published(BucketPlace('models', 'empty'))}"


@pytest.mark.parametrize("status", [0, 1])
def test_the_loop_publishes_only_after_a_good_rollout(state, object_store: ObjectStore, monkeypatch, status):
    """A model that fails its rollout is not published."""
    place = BucketPlace("models", f"loop-{status}")
    former = deliver(current(state), place).version
    seen: list[str] = []

    def roll_out(**options: Any) -> object:
        seen.append(published(place))
        return status

    monkeypatch.setattr(loop, "roll_out", roll_out)
    ended = loop.run(
        every=600, once=True, fewest=100, margin=0.05, step_duration=1, state_dir=state.folder, to=str(place)
    )
    assert (ended, seen) == (status, [former])
    assert (published(place) != former) == (status == 0)
