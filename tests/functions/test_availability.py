from pathlib import Path

import pytest

from chassis import watched_file as watching
from functions.rank_items.availability import kept_available, parse_item_ids
from recrank.model import Query, RankingModel
from recsys.features import UNKNOWN_FEATURES
from tests.waiting import until
from tools.bench.batching import make_artefact

pytestmark = pytest.mark.may_block


@pytest.fixture
def model():
    return RankingModel(make_artefact(items=50, dims=8))


def recommended(model: RankingModel) -> set[str]:
    return set(model.rank([Query(UNKNOWN_FEATURES, [], top_k=50)])[0].item_ids)


def test_the_file_lists_one_id_per_line():
    """The parser skips blank lines and comments, and only a line feed ends an id."""
    assert parse_item_ids("item_1\n\n  item 2 \n# sold out\n#item_3") == ["item_1", "item 2"]
    assert parse_item_ids("a\u2028b\nc") == ["a\u2028b", "c"]


async def test_file_changes_take_effect_without_a_restart(model, tmp_path: Path, monkeypatch, caplog):
    """The model never shows a listed item, follows changes of the file, and ignores a file that is not text."""
    monkeypatch.setattr("functions.rank_items.availability.LOOK_AGAIN_S", 0.01)
    file = tmp_path / "unavailable"
    file.write_text("item_1\n")
    async with kept_available(model, file):
        assert "item_1" not in recommended(model)
        assert "item_2" in recommended(model)
        file.write_text("item_2\nitem_3\n")
        await until(lambda: not {"item_2", "item_3"} & recommended(model))
        assert "item_1" in recommended(model)
        file.write_bytes(b"\xff\xfe")
        await until(lambda: "file_unreadable" in [record.msg for record in caplog.records])
        assert not {"item_2", "item_3"} & recommended(model)
        file.write_text("")
        await until(lambda: "item_2" in recommended(model))


async def test_a_missing_file_makes_nothing_unavailable(model, tmp_path, caplog):
    """Every item can be shown while the file is missing, and the missing file is logged."""
    async with kept_available(model, None):
        assert len(recommended(model)) == 50
    async with kept_available(model, tmp_path / "missing"):
        assert len(recommended(model)) == 50
    assert caplog.records[-1].msg == "file_unreadable"


def test_an_unreadable_file_is_logged_once(tmp_path, caplog):
    """A file that stays missing does not fill the log; it is logged again if it was there in between."""
    path = tmp_path / "f"
    file = watching.WatchedFile(path, str, unread="")
    for exists in (False, False, True, False, False, True, False):
        if exists:
            path.touch()
        else:
            path.unlink(missing_ok=True)
        file.look()
    assert [record.reason for record in caplog.records] == ["FileNotFoundError"] * 3


def test_the_file_is_checked_once_a_second(tmp_path):
    """Between two checks the watcher does not touch the file system."""
    times = iter([100.0, 100.0, 100.5, 101.0])
    file = watching.WatchedFile(tmp_path / "f", str, unread="", clock=lambda: next(times))
    assert file.due
    file.look()
    assert [file.due, file.due] == [False, True]
