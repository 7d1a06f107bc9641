"""The tutorial "Your own data": a refresh with its new item recommends that item, and says which items it leaves out."""

from pathlib import Path

import pytest

from recrank.model import Query, RankingModel
from recsys.features import UNKNOWN_FEATURES
from tests.documentation.pages import ROOT, block
from tests.trained import artefact_of, train

TUTORIAL = ROOT / "docs/tutorials/own-data.md"


@pytest.mark.may_block
def test_the_new_item_of_the_tutorial_is_recommended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
