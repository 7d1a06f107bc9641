from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from tests.demo import DemoState
from tests.running import Running, running


@dataclass(frozen=True)
class Pipeline:
    """Three function processes that call each other directly."""

    extract_features: Running
    rank_items: Running
    recommend: Running


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
