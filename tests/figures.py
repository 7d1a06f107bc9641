"""The figures that tests measure: a table of them ends the run."""

import pytest

FIGURE = "figure"
"""Name of the property of a report that holds a figure: what was measured, the value and its unit."""


def print_figures(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures of all tests, also of those that ran in other processes."""
    figures = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == FIGURE
    ]
    if not figures:
        return
    terminalreporter.section("figures of the hostile tests")
    for name, value, unit in sorted(figures):
        terminalreporter.write_line(f"{value:>12,.2f}".removesuffix(".00").rjust(12) + f" {unit}: {name}")
