from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from tests.demo import DemoState
from tests.running import Pipeline, running_pipeline


def start_pipeline(state: DemoState) -> AbstractContextManager[Pipeline]:
    return running_pipeline({"FEATURE_STORE_URL": state.store_url}, {"MODEL_PATH": str(state.model_path)})


@pytest.fixture(scope="session")
def pipeline(demo_state: DemoState) -> Iterator[Pipeline]:
    with start_pipeline(demo_state) as started:
        yield started
