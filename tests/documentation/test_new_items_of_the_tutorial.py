"""The tutorial "Your own data": a refresh with its new item recommends that item, and says which items it leaves out."""

from pathlib import Path

import pytest

from offline.state import StateDirectory
from recrank.artefact import read_artefact
from recrank.model import Query, RankingModel
from recsys.features import UNKNOWN_FEATURES
from tests.documentation.pages import ROOT, block
from tools.cli.verbs import main

TUTORIAL = ROOT / "docs/tutorials/own-data.md"


@pytest.mark.may_block
def test_the_new_item_of_the_tutorial_is_recommended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Eve has two items of the category of the mill. An item of another category is left out with a warning."""
    files = {title: tmp_path / title for title in ("ratings.csv", "titles.csv", "ages.csv", "new-titles.csv")}
    for title, path in files.items():
        path.write_text(block(TUTORIAL, title), "utf-8")
    state = ["--state-dir", str(tmp_path / "state")]
    given = ["--interactions", files["ratings.csv"], "--items", files["titles.csv"], "--users", files["ages.csv"]]
    assert main(["train", *map(str, given), *state]) == 0
    with files["new-titles.csv"].open("a", encoding="utf-8") as more:
        more.write("whisk,Whisk,baking\n")
    assert main(["train", "--from-store", "--refresh", "--items", str(files["new-titles.csv"]), *state]) == 0
    assert "warning: 1 items are not in the model" in capsys.readouterr().err
    folder = StateDirectory(tmp_path / "state")
    model = RankingModel(read_artefact(folder.model_path(folder.require_current())))
    (answer,) = model.rank([Query(UNKNOWN_FEATURES, ["grinder", "beans"], top_k=5)])
    assert "mill" in answer.item_ids
    assert "whisk" not in model.item_ids
