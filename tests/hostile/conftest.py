"""The figures that the hostile tests measure: a table of them ends the run."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.conftest import pipeline  # noqa: F401 - a fixture

Figure = Callable[[str, float, str], None]
_PROPERTY = "figure"


@pytest.fixture
def figure(record_property: Callable[[str, Any], None]) -> Figure:
    """Return a function that adds a line to the table: what was measured, the value and its unit."""

    def record(name: str, value: float, unit: str) -> None:
        record_property(_PROPERTY, (name, value, unit))

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures of all tests."""
    figures = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == _PROPERTY
    ]
    if not figures:
        return
    terminalreporter.section("figures of the hostile tests")
    for name, value, unit in sorted(figures):
        terminalreporter.write_line(f"{value:>12,.2f}".removesuffix(".00").rjust(12) + f" {unit}: {name}")
