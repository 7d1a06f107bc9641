import asyncio
from pathlib import Path

import pytest

from chassis import watched_file as watching
from functions.rank_items.availability import kept_available, parse_item_ids
from recsys.features import NOBODY
from recsys.ranking.model import Query, RankingModel
from tools.bench.batching import make_artefact

pytestmark = pytest.mark.may_block


@pytest.fixture
def model():
    return RankingModel(make_artefact(items=50, dims=8))


def shown(model: RankingModel) -> set[str]:
    return set(model.rank([Query(NOBODY, [], top_k=50)])[0].item_ids)


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


def test_one_id_a_line():
    """Blank lines and comments are no items."""
    assert parse_item_ids("item_1\n\n  item 2 \n# sold out\n#item_3") == ["item_1", "item 2"]


async def test_the_file_is_followed(model, tmp_path: Path, monkeypatch):
    """What is listed before the start is never shown; what changes counts without a restart; garbage changes nothing."""
    monkeypatch.setattr("functions.rank_items.availability.LOOK_AGAIN_S", 0.01)
    file = tmp_path / "unavailable"
    file.write_text("item_1\n")
    async with kept_available(model, file):
        assert "item_1" not in shown(model)
        assert "item_2" in shown(model)
        file.write_text("item_2\nitem_3\n")
        await until(lambda: not {"item_2", "item_3"} & shown(model))
        assert "item_1" in shown(model)
        file.write_bytes(b"\xff\xfe")
        await asyncio.sleep(0.05)
        assert not {"item_2", "item_3"} & shown(model)
        file.write_text("")
        await until(lambda: "item_2" in shown(model))


async def test_no_file_is_nothing_unavailable(model, tmp_path, caplog):
    """Without a file, or before there is one, everything can be shown; a missing one is logged."""
    async with kept_available(model, None):
        assert len(shown(model)) == 50
    async with kept_available(model, tmp_path / "missing"):
        assert len(shown(model)) == 50
    assert caplog.records[-1].msg == "file_unreadable"


def test_a_file_is_looked_at_once_a_second(tmp_path):
    """Between two looks nobody touches the file system."""
    times = iter([100.0, 100.0, 100.5, 101.0])
    file = watching.WatchedFile(tmp_path / "f", str, unread="", clock=lambda: next(times))
    assert file.due
    file.look()
    assert [file.due, file.due] == [False, True]
