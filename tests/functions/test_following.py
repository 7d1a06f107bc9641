"""rank_items follows the catalogue: the revision in its metrics is that of the model in use."""

from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from functions.rank_items.following import CatalogueFollower
from functions.rank_items.live_model import LiveModel
from recsys.catalogue.entries import Entry, describe
from recsys.catalogue.urls import open_catalogue
from recsys.items import Item
from recsys.ranking.artefact import ArtefactError, read_artefact
from recsys.ranking.model import RankingModel
from recsys.stores.urls import open_store
from tests.demo import DemoState


@pytest.mark.may_block
async def test_a_change_that_cannot_be_applied_keeps_the_revision(demo_state: DemoState, tmp_path: Path) -> None:
    """The model and its revision stay until a later change can be applied."""
    model, url = RankingModel(read_artefact(demo_state.model_path)), f"sqlite:///{tmp_path / 'store.db'}"
    await open_store(url, create=True).aclose()
    failing = True

    def rebuild(_: Mapping[str, Entry]) -> RankingModel:
        if failing:
            raise ArtefactError("does not fit")
        return RankingModel(read_artefact(demo_state.model_path))

    live = LiveModel(model, rebuild=rebuild)
    follower = CatalogueFollower(live, url)
    async with aclosing(follower), aclosing(open_catalogue(url)) as catalogue:
        assert await catalogue.put([describe(Item("new", "New"), at_us=1)]) == [True]
        for _ in range(2):
            await follower.look()
            assert (follower.revision, live.model) == (0, model)
        failing = False
        await catalogue.put([describe(Item("other", "Other"), at_us=2)])
        await follower.look()
        assert follower.revision == 2
        assert live.model is not model
