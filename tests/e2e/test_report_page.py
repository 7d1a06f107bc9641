"""The report of a load test in a browser."""

from pathlib import Path

import pytest

from loadtests.report import write_report
from tests.e2e.browser import faults
from tests.loadtests.test_report import record, result_of
from tests.programs import needs_browser
from tools.browser import browsing

pytestmark = [pytest.mark.scenario, pytest.mark.may_block, pytest.mark.timeout(120), needs_browser]


def test_the_report_fits_a_phone_and_is_accessible(tmp_path: Path):
    """
    On desktop and phone, light and dark, the report does not scroll sideways, and axe-core finds no violation.

    axe-core cannot decide the contrast of text in SVG. Its colour there is the colour of the other text.
    """
    report = write_report(result_of(record(fault="reset")), tmp_path)
    with browsing() as browser:
        for scheme in ("light", "dark"):
            for width, height in ((1280, 900), (390, 844)):
                page = browser.new_page(
                    viewport={"width": width, "height": height},
                    color_scheme=scheme,
                )
                page.goto(report.as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert faults(page, leave_out="svg") == []
                page.screenshot(path=str(tmp_path / f"{width}-{scheme}.png"), full_page=True)
                page.close()
