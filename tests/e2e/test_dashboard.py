"""The dashboard in a browser, with a running pipeline."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.demo import DemoState
from tests.e2e.browser import faults, highest
from tests.e2e.verbs import started, verb
from tests.kndashboard.tried import write_all
from tests.localkn.running import needs_envoy
from tests.programs import needs_browser
from tests.running import ROOT
from tools.browser import browsing

pytestmark = [
    pytest.mark.scenario, pytest.mark.alone, pytest.mark.may_block, pytest.mark.timeout(300), needs_browser, needs_envoy
]  # fmt: skip

SIZES = {"desktop": (1280, 900), "phone": (390, 844), "small phone": (360, 780)}


@pytest.fixture(scope="module")
def up(demo_state: DemoState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """
    Start a pipeline with the tutorial's simulated costs, an ended experiment and a rollout under way.

    Yield the dashboard's address and the public port.
    """
    state = tmp_path_factory.mktemp("state")
    demo_state.copy_to(state)
    write_all(state)
    with started(state, "--simulate-latency") as port:
        shown = json.loads(verb("status", "--json", "--state-dir", str(state)).stdout)
        yield shown["dashboard"], port


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as started:
        yield started


@pytest.fixture
def page(browser: Browser, up: tuple[str, int]) -> Iterator[Page]:
    """Open the page, and fail the test if it logs an error or a message."""
    complaints: list[str] = []
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(f"{up[0]}/_dashboard")
    expect(opened.locator("#pulse")).to_have_text("live")
    yield opened
    opened.close()
    assert complaints == []


def test_a_scale_out_is_shown_live(page: Page, up: tuple[str, int]):
    """Under load new instances appear in the picture, the table and the announcements, without a reload."""
    ranking = page.locator("[data-service=rank-items]")
    expect(ranking).to_have_attribute("data-ready", "1")
    # Groups of four calls from sixty callers are seven times the load of one instance of rank-items.
    load = [sys.executable, "-m", "tools.bench.closed_loop", "--port", str(up[1]), "--callers", "60", "--seconds", "25"]
    with subprocess.Popen(load, cwd=ROOT, stdout=subprocess.PIPE) as running:
        page.wait_for_function(
            "() => document.querySelector('[data-service=rank-items]').dataset.ready >= 3", timeout=60_000
        )
        expect(page.locator("#news")).to_contain_text("rank-items")
        expect(ranking).to_contain_text("panic mode")
        expect(ranking.locator(".instance.ready").nth(2)).to_be_visible()
        expect(page.locator("[data-revision=rank-items-00001]")).to_contain_text("100 %")
        expect(page.locator("#batches caption")).to_contain_text("batches, by size")
        expect(page.locator("svg .wire.busy:not(.event)")).to_have_count(3)
        running.communicate()
    # A page that is opened after the load shows the whole scale-out.
    page.reload()
    assert highest(page, "Instances", "rank-items, ready") >= 3
    assert highest(page, "Requests", "recommend, requests a second") > 1
    assert highest(page, "Latency", "rank-items, p99") >= 50
    # The charts of this young pipeline do not show the quarter of an hour before it, and those of a row are level.
    times = page.locator("[data-chart=ready] tbody th").all_text_contents()
    first, last = (datetime.strptime(each, "%H:%M:%S") for each in (times[0], times[-1]))  # noqa: DTZ007 - a difference
    assert (last - first) % timedelta(days=1) < timedelta(minutes=10)
    tops = page.locator(".plot").evaluate_all("plots => plots.map((plot) => plot.getBoundingClientRect().y)")
    assert (tops[4:6], tops[6:8]) == (tops[4:5] * 2, tops[6:7] * 2)
    expect(page.locator("#marks")).to_contain_text("the pipeline starts")
    # The crosshair of all charts follows the pointer, and the slider for the keyboard.
    page.locator("[data-chart=ready] .plot").hover()
    expect(page.locator("#moment")).not_to_have_text("now")
    assert (
        page.locator(".cross").evaluate_all(
            "lines => new Set(lines.map((line) => line.getAttribute('transform'))).size"
        )
        == 1
    )
    page.mouse.move(0, 0)
    expect(page.locator("#moment")).to_have_text("now")
    page.locator("#slider").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#moment")).not_to_have_text("now")


def test_a_request_shows_its_receipt(page: Page):
    """The keyboard alone reaches the form through the skip link, and the answer shows a waterfall of its phases."""
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to trying a request")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("User", exact=True)).to_be_focused()
    page.keyboard.press("Control+A")
    page.keyboard.type("user_7")
    page.keyboard.press("Enter")
    expect(page.locator("#verdict")).to_contain_text("200 in")
    expect(page.locator("#round-trip")).to_contain_text("added")
    expect(page.locator("#answer .items li")).to_have_count(5)
    expect(page.locator("#answer .items li b")).to_have_count(5)
    expect(page.locator("#answer pre").first).to_contain_text('curl -d \'{"user_id":"user_7","top_k":5}\'')
    receipt = page.locator("#waterfall")
    for phase in ("feature store", "model", "recommend", "network, rank_items"):
        expect(receipt).to_contain_text(phase)
    expect(page.locator("#answer dl")).to_contain_text("rank-items-00001")
    # Each bar starts where the one before it ends.
    starts = page.locator("#waterfall .bar").evaluate_all("bars => bars.map((bar) => bar.getBoundingClientRect().x)")
    assert starts == sorted(starts)


def test_a_refusal_is_shown_as_text(page: Page):
    """The page shows the problem document of a request that the pipeline refuses, and interprets no markup in it."""
    page.get_by_label("User", exact=True).fill("<i>x</i>")
    page.get_by_label("How many").fill("999")
    page.get_by_role("button", name="Recommend").click()
    expect(page.locator("#verdict")).to_contain_text("422")
    expect(page.locator("#answer pre").first).to_contain_text("must be at most 100")
    assert page.locator("#answer i").count() == 0
    page.get_by_label("How many").fill("many")
    page.get_by_role("button", name="Recommend").click()
    expect(page.locator("#answer pre").first).not_to_contain_text("must be at most 100")
    expect(page.locator("#verdict")).to_contain_text("422")


def test_the_page_says_which_pipeline_it_shows(page: Page):
    """The title names data set and state directory; the model, the catalogue, the triggers, trials and logs are shown."""
    expect(page).to_have_title(re.compile(r"^demo · /.+ · Recommendation pipeline$"))
    expect(page.locator("#model")).to_contain_text("1,000 users, 1,000 items")
    page.get_by_label("Id, title or attribute").fill("item_77")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#items")).to_contain_text("11 items")
    page.get_by_role("button", name="item_770", exact=True).click()
    expect(page.locator("#item dl")).to_contain_text("available")
    expect(page.locator("#item dl")).to_contain_text("category")
    expect(page.locator("#item .similar li")).to_have_count(10)
    page.locator("#item .similar button").first.click()
    expect(page.locator("#item h3").first).not_to_have_text("item_770")
    expect(page.locator("#triggers")).to_contain_text("interactions")
    expect(page.locator("[data-service=broker-ingress]")).to_contain_text("interactions → extract-features")
    expect(page.locator("#changes")).to_contain_text("colours, ended")
    page.get_by_text("colours, ended").click()
    expect(page.locator("#changes table")).to_contain_text(["its p99 is 240 ms", "5 %"])
    expect(page.locator("[data-rollout=rank-items]")).to_contain_text("then 100 %")
    page.get_by_label("Instance or part").select_option(index=1)
    expect(page.locator("#lines")).to_be_visible()


def test_the_page_loads_little(browser: Browser, up: tuple[str, int]):
    """The first paint takes at most 150 KB, all from the dashboard."""
    received: dict[str, int] = {}
    page = browser.new_page()
    page.on("response", lambda answer: received.update({answer.url: len(answer.body())}))
    page.goto(f"{up[0]}/_dashboard")
    expect(page.locator("#picture svg")).to_be_visible()
    expect(page.locator(".plot")).to_have_count(8)
    page.close()
    assert sum(received.values()) <= 150_000
    assert {url.split("/_dashboard")[0] for url in received} == {up[0]}


def test_a_user_is_shown_with_what_one_item_more_changes(page: Page, up: tuple[str, int]):
    """Features, history and recommendations are shown, and the list that the added item would make."""
    page.get_by_label("User id").fill("user_7")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#user dl")).to_contain_text("engagement score")
    page.locator("#user summary").click()
    expect(page.locator("#user details li").first).to_contain_text(re.compile(r"item_\d+ \d+ \w+ 20\d\d, \d\d:\d\d"))
    expect(page.locator("#user .grid li")).to_have_count(10)
    expect(page.locator("#user .grid ol").first).to_contain_text("because of")
    page.get_by_label("What if").fill("item_5")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#user")).to_contain_text("nothing is stored")
    expect(page.locator("#user .grid li")).to_have_count(20)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_page_fits_and_is_accessible(browser: Browser, up: tuple[str, int], size: str, scheme: str):
    """
    On desktop and phone, light and dark, the page does not scroll sideways, and axe-core finds no violation.

    Everything that opens is open. axe-core decides every rule, so the contrast of every text is known.
    """
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(f"{up[0]}/_dashboard")
    page.get_by_role("button", name="Recommend").click()
    expect(page.locator("#waterfall")).to_be_visible()
    page.get_by_label("User id").fill("user_7")
    page.get_by_label("What if").fill("item_5")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#user .grid li")).to_have_count(20)
    page.get_by_label("Id, title or attribute").fill("item_77")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#items")).to_contain_text("11 items")
    page.get_by_role("button", name="item_77", exact=True).click()
    expect(page.locator("#item .similar li")).to_have_count(10)
    expect(page.locator("#lines")).to_be_visible()
    expect(page.locator("#changes section")).to_have_count(2)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert faults(page) == []
    page.close()
