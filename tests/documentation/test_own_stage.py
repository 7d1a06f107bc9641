"""The tutorial "Your own stage", followed step by step."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from localkn.envoy import executable
from localkn.processes import free_port
from tests.documentation.pages import ROOT, block, blocks
from tests.running import CLIENT
from tests.waiting import LIMIT_S

TUTORIAL = ROOT / "docs/tutorials/own-stage.md"
STAGE = "anger/stage.py"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The tutorial's pipeline, started with its command in a folder that has its files; its address."""
    folder, port = tmp_path_factory.mktemp("tutorial"), free_port()
    (folder / "anger").mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    for title in (STAGE, "anger/services.yaml", "anger/commands.yaml"):
        (folder / title).write_text(block(TUTORIAL, title), "utf-8")
    (up,) = [found.code for found in blocks(TUTORIAL) if " localkn up " in found.code]
    words = [sys.executable, *shlex.split(up.replace("\\\n", ""))[1:], "--detach"]
    words[words.index("--port") + 1] = str(port)
    if not executable():
        words.append("--direct")
    try:
        subprocess.run(words, cwd=folder, check=True, timeout=LIMIT_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        down = [sys.executable, "-m", "localkn", "down", "--state-dir", ".anger"]
        subprocess.run(down, cwd=folder, check=True, timeout=LIMIT_S)


def _requests() -> list[str]:
    return re.findall(r"^curl -d '(.+)' http", TUTORIAL.read_text("utf-8"), re.MULTILINE)


@pytest.mark.scenario
@pytest.mark.parametrize(("number", "title", "status"), [(0, "answer", 200), (1, "refusal", 422)])
def test_the_pipeline_of_the_tutorial_answers_as_printed(url, number, title, status):
    """The tutorial's requests get the answers that the tutorial prints."""
    answer = CLIENT.post(url, content=_requests()[number], headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()) == (status, json.loads(block(TUTORIAL, title)))


@pytest.mark.scenario
def test_the_stage_reports_every_faulty_variable():
    """Without its variables the stage does not start, and names all of them."""
    code = block(TUTORIAL, STAGE)
    stage = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT_S, env={}, check=False
    )
    assert stage.returncode != 0
    assert "TOPIC_URL is not set" in stage.stderr
    assert "AUTH is not set" in stage.stderr


def test_the_readme_shows_the_same_stage():
    """README.md shows the stage of the tutorial."""
    (shown,) = [found.code for found in blocks(ROOT / "README.md") if found.language == "python"]
    assert shown == block(TUTORIAL, STAGE)


def test_the_readme_counts_the_lines_of_the_stage():
    """The number of lines that README.md states is that of the code without blank lines, and at most 30."""
    lines = [line for line in block(TUTORIAL, STAGE).splitlines() if line.strip()]
    assert f"is {len(lines)} lines with its imports" in (ROOT / "README.md").read_text("utf-8")
    assert len(lines) <= 30
