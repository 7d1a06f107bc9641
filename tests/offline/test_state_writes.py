"""What a state directory writes is on disk before the next step, and readers find the former pair or the new one."""

import os
from pathlib import Path

import msgspec
import pytest

from offline.state import Current, StateDirectory

FORMER, NEXT = Current("stores/1-a.db", "models/1-a", "a"), Current("stores/2-b.db", "models/2-b", "b")


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the inode of every file and folder that is written to disk."""
    inodes: list[int] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        inodes.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr("offline.state.os.fsync", note)
    return inodes


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_the_pointer_is_replaced_and_never_changed(tmp_path: Path, synced: list[int]) -> None:
    """A reader that opened the former pointer reads all of it; the new pointer is on disk before it gets its name."""
    state = StateDirectory(tmp_path)
    with state.locked():
        state.advance(FORMER)
        with (tmp_path / "current.json").open("rb") as former:
            synced.clear()
            state.advance(NEXT)
            assert msgspec.json.decode(former.read(), type=Current) == FORMER
    assert state.current() == NEXT
    assert synced == [inode(tmp_path / "current.json"), inode(tmp_path)]


def test_a_published_model_is_on_disk(tmp_path: Path, synced: list[int]) -> None:
    """The files, their folder and the entry of the folder are written before the path is returned."""
    state = StateDirectory(tmp_path)
    with state.locked():
        draft = state.draft("model")
        draft.mkdir()
        (draft / "manifest.json").write_text("{}")
        path = tmp_path / state.publish(draft, "models", "a")
    assert path == tmp_path / "models/1-a"
    assert synced == [inode(path / "manifest.json"), inode(path), inode(tmp_path / "models")]


def test_a_writer_deletes_the_drafts_of_a_killed_one(tmp_path: Path) -> None:
    """The next training starts without the drafts that a killed training left."""
    state = StateDirectory(tmp_path)
    with state.locked():
        state.draft("model").mkdir()
    with state.locked():
        assert not state.draft("model").exists()
