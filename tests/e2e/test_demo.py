"""The demonstration, and what its page shows afterwards."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from localkn.processes import free_port
from tests.demo import DemoState
from tests.e2e.browser import highest
from tests.e2e.verbs import assert_none_left, verb
from tests.localkn.running import needs_envoy
from tests.programs import needs_browser
from tools.browser import browsing

pytestmark = [
    pytest.mark.scenario, pytest.mark.alone, pytest.mark.may_block, pytest.mark.timeout(300), needs_browser, needs_envoy
]  # fmt: skip


def test_the_page_shows_the_scale_out_of_the_demo(demo_state: DemoState, tmp_path: Path):
    """After `demo --keep`, a page that is opened for the first time shows the whole scale-out and its latencies."""
    demo_state.copy_to(tmp_path)
    words = ["--state-dir", str(tmp_path)]
    try:
        printed = verb("demo", "--keep", "--port", str(free_port()), *words).stdout
        shown = json.loads(verb("status", "--json", *words).stdout)
        assert f"{shown['dashboard']}/_dashboard" in printed
        reached = re.search(r"up to (\d) instances of rank-items", " ".join(printed.split()))
        assert reached
        with browsing() as browser:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(f"{shown['dashboard']}/_dashboard")
            expect(page.locator("#pulse")).to_have_text("live")
            # A point of the chart is the mean of five seconds.
            assert highest(page, "Instances", "rank-items, ready") > int(reached[1]) - 1
            assert highest(page, "Requests", "recommend, requests a second") > 1
            assert highest(page, "Latency", "rank-items, p99") >= 50
    finally:
        verb("down", *words)
    assert_none_left(tmp_path)
