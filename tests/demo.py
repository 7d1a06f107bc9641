"""The demo data, trained once for all workers of a test run."""

import fcntl
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from offline.demo import Demo, make_demo
from offline.state import StateDirectory
from recsys.records import UserRecord
from tools.cli.verbs import main as run_verb

if TYPE_CHECKING:
    from offline.choice import Choice


@dataclass(frozen=True)
class DemoState:
    """A state directory with the demo data, and the addresses of its store and model."""

    folder: Path
    store_url: str
    model_path: Path

    def copy_to(self, folder: Path) -> None:
        """Fill the state directory *folder*, so that `up` and `train --if-missing` find a model and do not train."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)


@pytest.fixture(scope="session")
def demo() -> Demo:
    """Return the demo data. Tests do not change it."""
    return make_demo()


@pytest.fixture(scope="session")
def demo_state(tmp_path_factory: pytest.TempPathFactory) -> DemoState:
    """Return the demo, trained with the settings that `up` chooses. Tests that change it copy it first."""
    folder = _trained_once(tmp_path_factory, "demo")
    state = StateDirectory(folder)
    current = state.current()
    assert current is not None
    return DemoState(folder, state.store_url(current), state.model_path(current))


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a state directory with the demo, without the newest fifth of each user."""
    return _trained_once(tmp_path_factory, "held-out", "--holdout", "temporal")


def _trained_once(factory: pytest.TempPathFactory, name: str, *words: str) -> Path:
    """Train into the folder *name* of the run, unless another worker of pytest-xdist has done so."""
    run = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent
    folder = run / name
    with (run / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if StateDirectory(folder).current() is None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("offline.decision.choose", _chosen)
                assert run_verb(["train", "--state-dir", str(folder), *words]) == 0
    return folder


def _chosen(records: Sequence[UserRecord], **_: Any) -> "Choice":
    """Return what a training chooses for the demo: the choice takes most of its time, and tests/offline covers it."""
    from offline.choice import Choice
    from offline.matrix import make_ratings
    from offline.selection import ORDERED_VIEWS
    from offline.training import BlendSettings, suggest

    weights = ((1.0, 0.774, 0.134, 0.0), (1.0, 0.123, 0.0, 0.219), (1.0, 0.079, 0.0, 0.073), (1.0, 0.0, 0.0, 0.0))
    blend = BlendSettings(ordered=True, views=(ORDERED_VIEWS[1],), lengths=(0, 1, 2, 4), weights=weights)
    return Choice(replace(suggest(make_ratings(records)), half_life=20.0, blend=blend), [])
