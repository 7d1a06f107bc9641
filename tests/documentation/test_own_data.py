"""The tutorial "Your own data": its files train a model that recommends what the tutorial says, and its new item."""

import subprocess
import sys

import pytest

from offline.state import StateDirectory
from recrank.model import Query, RankingModel
from recsys.features import UNKNOWN_FEATURES
from tests.documentation.pages import ROOT, block
from tests.running import running
from tests.trained import artefact_of, train
from tests.waiting import LIMIT_S

TUTORIAL = ROOT / "docs/tutorials/own-data.md"

pytestmark = pytest.mark.may_block


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


def test_the_new_item_of_the_tutorial_is_recommended(tmp_path, capsys):
    """Eve has two items of the category of the mill. An item of another category is left out with a warning."""
    files = {title: tmp_path / title for title in ("ratings.csv", "titles.csv", "ages.csv", "new-titles.csv")}
    for title, path in files.items():
        path.write_text(block(TUTORIAL, title), "utf-8")
    folder = tmp_path / "state"
    given = ["--interactions", files["ratings.csv"], "--items", files["titles.csv"], "--users", files["ages.csv"]]
    assert train(folder, *given) == 0
    with files["new-titles.csv"].open("a", encoding="utf-8") as more:
        more.write("whisk,Whisk,baking\n")
    assert train(folder, "--from-store", "--refresh", "--items", files["new-titles.csv"]) == 0
    assert "warning: items that are not in the model: 1;" in capsys.readouterr().err
    model = RankingModel(artefact_of(folder))
    (answer,) = model.rank([Query(UNKNOWN_FEATURES, ["grinder", "beans"], top_k=5)])
    assert "mill" in answer.item_ids
    assert "whisk" not in model.item_ids
