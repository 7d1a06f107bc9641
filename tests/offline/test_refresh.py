"""`train --from-store --refresh`, and items without interactions in `train`."""

from pathlib import Path

import pytest

from recrank.artefact import Item
from recrank.model import Query, RankingModel
from recsys.features import UNKNOWN_FEATURES
from recsys.records import Interaction
from tests.trained import apply_events, artefact_of, store_of, train, write_csv


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Train on 90 users, who each know seven items of one of three kinds; "new" and "other" have none."""
    rows = [
        f"u{user:02},i{(user % 3) * 10 + item},{1_700_000_000 + 1000 * item}"
        for user in range(90)
        for item in range(10)
        if (user + 3 * item) % 10 > 2
    ]
    interactions = write_csv(tmp_path / "rows.csv", "user_id,item_id,timestamp", rows)
    described = [*(f"i{item},Title {item},kind{item // 10}" for item in range(30)), "new,Fresh,kind0", "other,,kind1"]
    items = write_csv(tmp_path / "items.csv", "item_id,title,kind", described)
    assert train(tmp_path / "s", "--interactions", interactions, "--items", items) == 0
    return tmp_path / "s"


def test_an_item_without_interactions_is_recommended_by_its_attributes(folder):
    """The first new item in a user's list is the one with the attributes of the user's history."""
    artefact = artefact_of(folder)
    assert artefact.items[-2:] == [
        Item("new", "Fresh", {"kind": ("kind0",)}),
        Item("other", "", {"kind": ("kind1",)}),
    ]
    assert (artefact.manifest.training["items"], artefact.manifest.training["new_items"]) == (30, 2)
    assert any("trust" in trial["what"] for trial in artefact.manifest.training["choice"])
    model = RankingModel(artefact)
    for kind, expected in ((0, "new"), (1, "other")):
        (found,) = model.rank([Query(UNKNOWN_FEATURES, [f"i{kind * 10 + n}" for n in range(7)], top_k=20)])
        assert next(item_id for item_id in found.item_ids if not item_id.startswith("i")) == expected


def test_a_refresh_learns_new_interactions_and_keeps_the_settings(folder, capsys):
    """After a refresh, events of a new item change its vector, and all settings are those of the earlier model."""
    before = artefact_of(folder)
    events = [Interaction("/s", f"{n}", f"u{n * 3 + 1:02}", "purchase", 1_800_000_000_000_000, "new") for n in range(9)]
    apply_events(store_of(folder), *events)
    assert train(folder, "--from-store", "--refresh") == 0
    after = artefact_of(folder)
    for name in ("als", "half_life", "prior_strength", "attributes", "blend", "choice"):
        assert after.manifest.training[name] == before.manifest.training[name]
    assert after.manifest.training["refreshed"] == before.manifest.version
    assert (after.manifest.training["items"], after.manifest.training["new_items"]) == (31, 1)
    # The buyers of the new item have items of kind 1, so users of that kind now get it.
    (found,) = RankingModel(after).rank([Query(UNKNOWN_FEATURES, [f"i{10 + n}" for n in range(7)], top_k=5)])
    assert "new" in found.item_ids


def test_a_refresh_takes_new_items_from_a_file(folder, tmp_path):
    """`--items` adds items to the catalogue and new titles to its items."""
    (tmp_path / "more.csv").write_text("item_id,title,kind\nnewer,Fresher,kind1\ni0,Renamed,kind0\n")
    assert train(folder, "--from-store", "--refresh", "--items", tmp_path / "more.csv") == 0
    items = {item.item_id: item for item in artefact_of(folder).items}
    assert items["newer"] == Item("newer", "Fresher", {"kind": ("kind1",)})
    assert (items["i0"].title, items["i1"].title, items["new"].title) == ("Renamed", "Title 1", "Fresh")


def test_a_refresh_without_news_is_deterministic(folder):
    """Two refreshes of one model on one store give the same version."""
    store = (folder / "current.json").read_bytes()
    versions = []
    for _ in range(2):
        (folder / "current.json").write_bytes(store)
        assert train(folder, "--from-store", "--refresh") == 0
        versions.append(artefact_of(folder).manifest.version)
    assert versions[0] == versions[1]


def test_refresh_needs_a_store_and_no_search(folder, capsys):
    """Conflicting options are reported in one sentence."""
    for words in (["--refresh"], ["--from-store", "--refresh", "--search"]):
        assert train(folder, *words) == 2
        assert "--refresh goes with --from-store" in " ".join(capsys.readouterr().err.split())
