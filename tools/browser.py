"""The headless browser of the distribution, for pictures and for tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
"""Path of the browser; None if none of `NAMES` is installed."""


@contextmanager
def browsing() -> Iterator[Browser]:
    """Start `PROGRAM` without its sandbox, which needs privileges that a container does not have."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
