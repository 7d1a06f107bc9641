"""rank_items follows the place of its model, also past a model that it cannot load."""

from pathlib import Path

import pytest

from functions.rank_items.model_loader import LoadedModel
from functions.rank_items.renewal import ModelFollower
from recrank.artefact import ArtefactError
from recrank.model import RankingModel
from tools.bench.batching import make_artefact

pytestmark = pytest.mark.may_block


class Place:
    """A place at which a folder appears at each look, while there are any."""

    changes = True

    def __init__(self, *folders: str) -> None:
        self.folders = list(map(Path, folders))

    def fetch(self) -> Path | None:
        return self.folders.pop(0) if self.folders else None

    def keep(self, folder: Path) -> None:
        """Keep everything."""


@pytest.mark.parametrize("error", [ArtefactError("damaged"), RuntimeError("a feature of the team fails")], ids=type)
async def test_a_model_that_cannot_be_loaded_is_refused_until_the_next_one(error, caplog):
    """The instance says that it is behind, also after an error of a team's own code, and takes over a later model."""
    loaded = LoadedModel(RankingModel(make_artefact(items=50, dims=8)), 0.0, 0.0, 1.0)

    def load(folder: Path) -> LoadedModel:
        if folder.name == "faulty":
            raise error
        return loaded

    follower = ModelFollower(Place("first", "faulty"), load=load, rebuild=lambda each: lambda _: each.model)
    for _ in range(2):
        await follower.look()
        assert follower.is_behind
    assert [record.msg for record in caplog.records] == ["model_refused"]
    follower = ModelFollower(Place("first", "faulty", "good"), load=load, rebuild=lambda each: lambda _: each.model)
    for is_behind in (True, False):
        await follower.look()
        assert follower.is_behind is is_behind
