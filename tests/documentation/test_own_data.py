"""The tutorial "Your own data": its files train a model that recommends what the tutorial says."""

import subprocess
import sys

import pytest

from offline.state import StateDirectory
from tests.documentation.pages import ROOT, block
from tests.running import running
from tests.waiting import LIMIT_S

TUTORIAL = ROOT / "docs/tutorials/own-data.md"


@pytest.mark.may_block
@pytest.mark.scenario
def test_the_tutorial_s_data_lead_to_the_recommendation_it_names(tmp_path):
    """A user with coffee beans gets the grinder first."""
    for title in ("ratings.csv", "titles.csv", "ages.csv"):
        (tmp_path / title).write_text(block(TUTORIAL, title), "utf-8")
    files = ["--interactions", "ratings.csv", "--items", "titles.csv", "--users", "ages.csv"]
    state = ["--state-dir", str(tmp_path / "state")]
    subprocess.run(
        [sys.executable, "-m", "tools.cli", "train", *state, *files], cwd=tmp_path, check=True, timeout=LIMIT_S
    )
    changes = StateDirectory(tmp_path / "state").environment()
    settings = dict(change.partition(":")[2].partition("=")[::2] for change in changes)
    features = {"age_group": "45-54", "avg_session_duration": 0, "total_purchases": 0, "engagement_score": 0.5}
    with running("rank_items", {"MODEL_PATH": settings["MODEL_PATH"]}) as ranker:
        answer = ranker.post({"features": features, "history": ["beans"]}).json()
    assert answer["items"][0]["item_id"] == "grinder"
