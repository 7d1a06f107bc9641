"""Erasing users from a state directory: stores of all imports, the broker's queue, and the next models."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chassis.wire.cloudevents import Event
from knbroker.delivery import Stored
from knbroker.queue import Queue
from offline import export
from offline import material as training
from offline.erasures import spread
from offline.state import StateDirectory
from recstore.erasures import digest_user
from recstore.port import EventOutcome
from recsys.records import Interaction
from tests.offline.test_train import csv
from tests.trained import artefact_of, in_store, model_of, records_of, run, train

pytestmark = pytest.mark.may_block

__all__ = ["csv"]

USER = "u07"


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Keep the state directory that the first test makes."""
    return [tmp_path_factory.mktemp("imported")]


@pytest.fixture
def folder(csv: Path, tmp_path: Path, imported: list[Path]) -> Path:
    """Return a state directory with two imports of the same file."""
    (made,) = imported
    if not (made / "state").exists():
        for _ in range(2):
            assert train(made / "state", "--interactions", csv) == 0
    return Path(shutil.copytree(made / "state", tmp_path / "state"))


def erase(folder: Path, user: str = USER) -> int:
    return run("users", "erase", user, "--state-dir", folder)


def content(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def users(folder: Path) -> set[str]:
    return {record.user_id for record in records_of(folder)}


def test_an_erasure_clears_all_stores_and_the_queue(folder, capsys):
    """The receipt lists what was removed; no file of the state directory holds the user's id afterwards."""

    async def enqueue() -> None:
        (folder / "platform/events").mkdir(parents=True)
        queue = Queue(folder / "platform/events/queue.db", ["default/interactions"])
        attributes = {"specversion": "1.0", "id": "1", "source": "/s", "type": "a"}
        for user in (USER, USER, "u08"):
            stored = Stored("default/default", Event(attributes, json.dumps({"user_id": user}).encode()), 255, [])
            await queue.add(stored, ["default/interactions"])
        await queue.close()

    asyncio.run(enqueue())
    assert USER.encode() in content(folder)
    capsys.readouterr()
    assert erase(folder) == 0
    receipt = json.loads(capsys.readouterr().out)
    assert receipt["user_sha256"] == digest_user(USER)
    assert [(each["users"], each["items"] > 0) for each in receipt["stores"]] == [(1, True)] * 2
    assert receipt["queued_events"] == 2
    assert receipt["verified"] is True
    assert "train --from-store" in receipt["next"][0]
    assert USER not in json.dumps(receipt)
    assert USER.encode() not in content(folder)
    assert b"u08" in content(folder)
    assert run("users", "show", USER, "--state-dir", folder) == 1
    capsys.readouterr()
    assert erase(folder) == 0
    again = json.loads(capsys.readouterr().out)
    assert [each["users"] for each in again["stores"]] == [0, 0]
    assert len(again["next"]) == 1


def test_no_training_brings_an_erased_user_back(folder, csv, capsys):
    """An import of the same file, and a training on the store, leave the user out of the store and of the model."""
    before = artefact_of(folder).manifest
    assert erase(folder) == 0
    assert train(folder, "--interactions", csv) == 0
    assert users(folder) == {f"u{n:02}" for n in range(30)} - {USER}
    imported = artefact_of(folder).manifest
    assert imported.training["users"] == before.training["users"] - 1
    assert USER.encode() not in content(folder)
    assert train(folder, "--from-store") == 0
    assert artefact_of(folder).manifest.version == imported.version


def test_a_refresh_after_an_erasure_is_refused(folder, capsys):
    """A refresh would start from vectors that contain the user; after a full training it works again."""
    assert erase(folder) == 0
    assert train(folder, "--from-store", "--refresh") == 1
    assert "train without --refresh" in capsys.readouterr().err
    assert train(folder, "--from-store") == 0
    assert train(folder, "--from-store", "--refresh") == 0


@pytest.mark.parametrize("words", [["--from-store"], ["--from-store", "--refresh"], ["--interactions"]])
def test_a_training_that_began_before_an_erasure_changes_nothing(folder, csv, words, monkeypatch, capsys):
    """A user who is erased while a training runs is in no model that becomes current; a second training succeeds."""
    words = [*words, csv] if words == ["--interactions"] else words
    current = StateDirectory(folder).current()
    for name in ("train", "refresh"):
        real = getattr(training, name)

        def interrupted(*arguments: Any, real: Callable[..., Any] = real, **options: Any) -> Any:
            assert erase(folder) == 0
            return real(*arguments, **options)

        monkeypatch.setattr(training, name, interrupted)
    assert train(folder, *words) == 1
    assert "run the same command again" in capsys.readouterr().err
    assert StateDirectory(folder).current() == current
    monkeypatch.undo()
    assert train(folder, *(word for word in words if word != "--refresh")) == 0
    assert USER not in users(folder)


def test_a_running_store_passes_its_erasures_on(folder):
    """An erasure that a running pipeline got by event reaches the store of a later import with the next start."""
    first, second = StateDirectory(folder).stores()
    in_store(f"sqlite:///{first}", lambda store: store.erase(USER, at_us=5))
    assert USER in users(folder)
    (erasure,) = spread(StateDirectory(folder))
    assert erasure.user == digest_user(USER)
    assert USER not in users(folder)
    assert USER.encode() not in content(folder / "stores")
    assert in_store(f"sqlite:///{second}", lambda store: store.is_scrubbed())


def test_a_damaged_store_does_not_stop_the_others(folder, capsys):
    """`spread` leaves out a store that cannot be read; `users erase` says that the erasure is not complete."""
    first, second = StateDirectory(folder).stores()
    in_store(f"sqlite:///{second}", lambda store: store.erase(USER, at_us=5))
    first.write_bytes(b"not a database, " * 300)
    assert len(spread(StateDirectory(folder))) == 1
    assert erase(folder, "u01") == 1
    assert f"{first.name}" in (told := capsys.readouterr().err)
    assert "run the command again" in told


def test_a_readmitted_user_comes_back_everywhere(folder, csv, capsys):
    """After `users readmit`, the user is in the next import, and no store erases the user again."""
    assert run("users", "readmit", USER, "--state-dir", folder) == 1
    assert "is not erased" in capsys.readouterr().err
    assert erase(folder) == 0
    assert run("users", "readmit", USER, "--state-dir", folder) == 0
    assert train(folder, "--interactions", csv) == 0
    spread(StateDirectory(folder))
    assert USER in users(folder)
    later = Interaction("/s", "1", USER, "view", 4_000_000_000_000_000, "i1")
    (path,) = StateDirectory(folder).stores()[2:]
    assert in_store(f"sqlite:///{path}", lambda store: store.apply([later])) == [EventOutcome.ACCEPTED]
    assert run("users", "readmit", USER, "--state-dir", folder) == 1


def test_an_artefact_names_no_user(folder):
    """The files of a model hold items and numbers, and no ids of users."""
    assert artefact_of(folder).items
    assert not any(f"u{n:02}".encode() in content(model_of(folder)) for n in range(30))


def test_a_locked_queue_is_reported(folder, capsys):
    """An erasure that cannot clear the queue fails, and the user stays erased in the stores."""
    (folder / "platform/events").mkdir(parents=True)
    path = folder / "platform/events/queue.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (x)")
        other.commit()
        assert erase(folder) == 1
    assert "the erasure is not complete" in capsys.readouterr().err
    assert USER not in users(folder)


def test_an_export_after_an_erasure_starts_again(folder, tmp_path, monkeypatch, capsys):
    """An export during which a user is erased writes no file, and the next one holds the others only."""
    target = tmp_path / "lists.csv"
    real = export.rank_records

    def interrupted(*arguments: Any, **options: Any) -> Any:
        # The verb starts an event loop, so it needs another thread than the export.
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(erase, folder).result() == 0
        return real(*arguments, **options)

    monkeypatch.setattr(export, "rank_records", interrupted)
    assert run("export", "--to", target, "--state-dir", folder) == 1
    assert "repeat the command" in capsys.readouterr().err
    assert not [file for file in tmp_path.iterdir() if file.name.startswith("lists")]
    monkeypatch.undo()
    assert run("export", "--to", target, "--state-dir", folder) == 0
    assert USER not in target.read_text()
    assert "u08" in target.read_text()


def test_an_interrupted_export_is_not_continued_after_an_erasure(folder, tmp_path, monkeypatch):
    """The lists that an interrupted export has written may hold a user who is erased before it continues."""
    target = tmp_path / "lists.csv"
    monkeypatch.setattr(export, "_CHUNK", 10)
    real, calls = export.rank_records, iter(range(9))

    def stopped(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(export, "rank_records", stopped)
    assert run("export", "--to", target, "--state-dir", folder) == 130
    assert USER in (tmp_path / "lists.csv.partial").read_text()
    assert erase(folder) == 0
    assert run("export", "--to", target, "--state-dir", folder) == 0
    assert USER not in target.read_text()
