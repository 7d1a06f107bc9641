"""A headless browser from the distribution, for tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

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
