"""Fixtures of the hostile tests."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.figures import FIGURE
from tests.hostile.servers import KINDS, Server, serving
from tests.integration.conftest import pipeline  # noqa: F401 - a fixture

Figure = Callable[[str, float, str], None]


@pytest.fixture
def figure(record_property: Callable[[str, Any], None]) -> Figure:
    """Return a function that adds a line to the table: what was measured, the value and its unit."""

    def record(name: str, value: float, unit: str) -> None:
        record_property(FIGURE, (name, value, unit))

    return record


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Start one server of each kind."""
    with serving(request.param) as started:
        # The first requests import modules and allocate memory, which the attacks must not be charged with.
        for _ in range(20):
            assert started.is_serving()
        yield started
