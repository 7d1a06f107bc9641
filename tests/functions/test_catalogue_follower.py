"""rank_items follows the catalogue: the revision in its metrics is that of the model in use."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from functions.rank_items.catalogue_follower import CatalogueFollower
from functions.rank_items.live_model import LiveModel
from recrank.artefact import ArtefactError, read_artefact
from recrank.model import Query, RankingModel
from recstore.catalogue.entries import Entry, describe
from recstore.catalogue.urls import open_catalogue
from recstore.urls import open_store
from recsys.features import UNKNOWN_FEATURES
from recsys.items import Item
from tests.demo import DemoState


@pytest.mark.may_block
@pytest.mark.parametrize(
    "error", [ArtefactError("does not fit"), RuntimeError("a feature of the team fails")], ids=type
)
async def test_a_change_that_cannot_be_applied_keeps_the_revision(
    demo_state: DemoState, tmp_path: Path, error: Exception
) -> None:
    """The model and its revision stay until a later change can be applied, also after an error of a team's own code."""
    model, url = RankingModel(read_artefact(demo_state.model_path)), f"sqlite:///{tmp_path / 'store.db'}"
    await open_store(url, create=True).aclose()
    failing = True

    def rebuild(_: Mapping[str, Entry]) -> RankingModel:
        if failing:
            raise error
        return RankingModel(read_artefact(demo_state.model_path))

    live = LiveModel(model, rebuild=rebuild)
    follower = CatalogueFollower(live, url)
    async with aclosing(follower), aclosing(open_catalogue(url)) as catalogue:
        assert await catalogue.put([describe(Item("new", "New"), at_us=1)]) == [True]
        for _ in range(2):
            await follower.look()
            assert (follower.revision, live.model) == (0, model)
        # The model cannot take descriptions over. It still stops offering an item that is unavailable.
        gone = model.item_ids[0]
        await catalogue.put([Entry(gone, available=False, available_us=1)])
        for _ in range(2):
            await follower.look()
            live.make_unavailable([])
            assert gone not in live.rank([Query(UNKNOWN_FEATURES, [], len(model.item_ids))])[0].item_ids
        failing = False
        await catalogue.put([describe(Item("other", "Other"), at_us=2)])
        await follower.look()
        assert follower.revision == 3
        assert live.model is not model


@pytest.mark.may_block
def test_a_list_that_arrives_during_a_change_reaches_the_new_model(demo_state: DemoState) -> None:
    """The items become unavailable in the new model, even if the list arrives while the model is being replaced."""
    artefact = read_artefact(demo_state.model_path)
    former, changed = RankingModel(artefact), RankingModel(artefact)
    live = LiveModel(former, rebuild=lambda _: changed)
    item = artefact.items[0].item_id
    arriving = threading.Thread(target=live.make_unavailable, args=[[item]])
    close = changed.make_unavailable
    seen: list[list[str]] = []

    def make_unavailable(item_ids: Sequence[str]) -> None:
        close(item_ids)
        seen.append(list(item_ids))
        if len(seen) == 1:
            arriving.start()
            # Without the lock, the list is closed in the former model alone at this moment.
            arriving.join(0.1)

    changed.make_unavailable = make_unavailable  # type: ignore[method-assign]
    live.replace(changed, rebuild=lambda _: changed)
    arriving.join()
    assert seen == [[], [item]]
