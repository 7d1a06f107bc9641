from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from offline.state import StateDirectory
from tests.running import Running, running
from tools.cli.verbs import main as run_verb


@dataclass(frozen=True)
class Pipeline:
    """Three function processes that call each other directly."""

    extract_features: Running
    rank_items: Running
    recommend: Running


@dataclass(frozen=True)
class DemoState:
    """A state directory with the demo data, and the addresses of its store and model."""

    folder: Path
    store_url: str
    model_path: Path


@pytest.fixture(scope="session")
def demo_state(tmp_path_factory: pytest.TempPathFactory) -> DemoState:
    folder = tmp_path_factory.mktemp("demo")
    assert run_verb(["train", "--state-dir", str(folder)]) == 0
    state = StateDirectory(folder)
    current = state.current()
    assert current is not None
    return DemoState(folder, state.store_url(current), state.model_path(current))


@contextmanager
def start_pipeline(state: DemoState) -> Iterator[Pipeline]:
    with ExitStack() as stack:
        features = stack.enter_context(running("extract_features", {"FEATURE_STORE_URL": state.store_url}))
        ranking = stack.enter_context(running("rank_items", {"MODEL_PATH": str(state.model_path)}))
        urls = {"EXTRACT_FEATURES_URL": features.url, "RANK_ITEMS_URL": ranking.url}
        yield Pipeline(features, ranking, stack.enter_context(running("recommend", urls)))


@pytest.fixture(scope="session")
def pipeline(demo_state: DemoState) -> Iterator[Pipeline]:
    with start_pipeline(demo_state) as started:
        yield started
