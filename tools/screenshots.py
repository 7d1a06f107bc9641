"""
`./run.sh screenshots`: draw all pictures of README and the documentation from a pipeline under load.

The pictures are the dashboard during a scale-out, in both themes and on a phone, the report of a load test, and an
experiment on the dashboard. They are WebP files of at most 150 KB.
"""

import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser

from localkn.address import read_status
from tools.browser import NAMES, PROGRAM, browsing
from tools.running import ROOT, run_verb, verb_up

ASSETS = ROOT / "docs/assets"
MOST_BYTES = 150_000
# Four instances of rank-items are ready, and the charts have lines.
_SCALED_OUT = """() => document.querySelector("#charts .line")
  && document.querySelector("[data-service=rank-items]")?.dataset.ready >= 4"""
# Two frames after an answer, its charts are drawn.
_DRAWN = "() => new Promise((done) => setTimeout(() => requestAnimationFrame(() => done(true)), 200))"
_WAIT_MS = 60_000
_EXPERIMENT = (
    ("experiments", "start", "mixing", "--arm", "control=50%", "--arm", "mixed=50%,diversity=1", "--users", "1000"),
    ("simulate", "--users", "1000", "--lists", "2"),
    ("experiments", "report", "--follow", "1s"),
)
_ANALYSED = "() => document.querySelector('#changes .interval')"
_LOAD = ("--shape", "spike", "--users", "60", "--duration", "60s")


@dataclass(frozen=True)
class Shot:
    """
    A picture.

    Attributes:
        name: Its file, without the ending.
        width: Width of the window, CSS pixels.
        height: Height of the window, CSS pixels.
        scheme: The theme.
        part: Selector of the part of the page; "" for the window.
    """

    name: str
    width: int
    height: int
    scheme: Literal["light", "dark"]
    part: str = ""


DASHBOARD = (
    Shot("dashboard-light", 1280, 1330, "light"),
    Shot("dashboard-dark", 1280, 1330, "dark"),
    Shot("dashboard-phone", 390, 844, "light"),
)
REPORT = (Shot("report", 1000, 1330, "light"),)
EXPERIMENT = (Shot("experiment", 1000, 1330, "light", "section:has([data-experiment])"),)


def screenshots(*, port: int) -> int:
    """Write the pictures into docs/assets; return the exit status."""
    if PROGRAM is None:
        print(f"none of {', '.join(NAMES)} is installed; install the package chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, browsing() as browser:
        state, report = Path(folder) / "state", Path(folder) / "report"
        with _running(state, "--simulate-latency", port=port) as url:
            load = ["load", *_LOAD, "--report", str(report), "--state-dir", str(state)]
            with subprocess.Popen([sys.executable, "-m", "tools.cli", *load], cwd=ROOT) as running:
                for shot in DASHBOARD:
                    _take(browser, shot, url, until=_SCALED_OUT)
                running.wait()  # the limits of a load test do not matter here
        for shot in REPORT:
            _take(browser, shot, (report / "report.html").as_uri(), until="() => document.querySelector('svg')")
        with _running(state, "--exposures", port=port) as url:
            for words in _EXPERIMENT:
                run_verb(*words, state_dir=state)
            for shot in EXPERIMENT:
                _take(browser, shot, url, until=_ANALYSED)
    return 0


@contextmanager
def _running(state: Path, *words: str, port: int) -> Iterator[str]:
    """Run a pipeline; yield the address of its page."""
    with verb_up(state, *words, port=port):
        yield f"{read_status(state / 'platform')['dashboard']}/_dashboard"


def _take(browser: Browser, shot: Shot, url: str, *, until: str) -> None:
    page = browser.new_page(viewport={"width": shot.width, "height": shot.height}, color_scheme=shot.scheme)
    try:
        page.goto(url)
        page.wait_for_function(until, timeout=_WAIT_MS)
        if shot in DASHBOARD:
            # The load fills the charts of the last five minutes.
            with page.expect_response("**/history?minutes=5*"):
                page.locator("#minutes").select_option("5")
            page.wait_for_function(_DRAWN)
        path = ASSETS / f"{shot.name}.webp"
        shown = page.locator(shot.part).screenshot() if shot.part else page.screenshot()
        path.write_bytes(compressed(shown))
    finally:
        page.close()
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} KB")


def compressed(png: bytes) -> bytes:
    """
    Return a picture as WebP of at most 150 KB, with the best quality that fits.

    Raises:
        ValueError: No quality fits.
    """
    picture = Image.open(io.BytesIO(png))
    for quality in (90, 80, 70, 60, 50, 40):
        written = io.BytesIO()
        picture.save(written, "WEBP", quality=quality, method=6)
        if len(written.getvalue()) <= MOST_BYTES:
            return written.getvalue()
    raise ValueError(f"a picture of {picture.width} x {picture.height} does not fit into {MOST_BYTES} bytes")
