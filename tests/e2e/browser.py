"""Check pages in a browser: the marker of tests that need one, and the faults that axe-core finds."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tools.browser import PROGRAM

# A busy machine may draw pages late, which is not a fault of the page.
expect.set_options(timeout=30_000)
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no chromium is installed")


def faults(page: Page, *, leave_out: str | None = None) -> list[tuple[str, list[str]]]:
    """Return the rules of axe-core that the page violates or leaves undecided, each with the elements; *leave_out* is a selector."""
    found = Axe().run(page, context={"exclude": [[leave_out]]} if leave_out else None).response
    return [
        (rule["id"], [node["target"] for node in rule["nodes"]])
        for rule in (*found["violations"], *found["incomplete"])
    ]
