"""Fixtures of the hostile tests."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.figures import FIGURE
from tests.integration.conftest import pipeline  # noqa: F401 - a fixture

Figure = Callable[[str, float, str], None]


@pytest.fixture
def figure(record_property: Callable[[str, Any], None]) -> Figure:
    """Return a function that adds a line to the table: what was measured, the value and its unit."""

    def record(name: str, value: float, unit: str) -> None:
        record_property(FIGURE, (name, value, unit))

    return record
