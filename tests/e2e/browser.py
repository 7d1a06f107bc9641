"""A headless browser from the distribution, for tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# A busy machine may draw pages late, which is not a fault of the page.
expect.set_options(timeout=30_000)
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no chromium is installed")


@contextmanager
def browsing() -> Iterator[Browser]:
    """Start a browser without its sandbox, which needs privileges that a container does not have."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def faults(page: Page, *, leave_out: str | None = None) -> list[tuple[str, list[str]]]:
    """Return the rules of axe-core that the page violates or leaves undecided, each with the elements; *leave_out* is a selector."""
    found = Axe().run(page, context={"exclude": [[leave_out]]} if leave_out else None).response
    return [
        (rule["id"], [node["target"] for node in rule["nodes"]])
        for rule in (*found["violations"], *found["incomplete"])
    ]
