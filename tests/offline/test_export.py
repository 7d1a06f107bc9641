"""Exported lists: complete after any interruption, and the same in every format."""

import asyncio
import csv
import json
import os
from contextlib import aclosing
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from offline import export as exporting
from offline.catalogue import put_entries
from offline.export import ExportError, ExportJournal, export
from offline.state import StateDirectory
from recrank.model import RankingModel
from recstore.catalogue.entries import REMOVED, Entry
from recstore.urls import open_store
from recsys.contracts import wire
from tests.trained import artefact_of, run, store_of, train, write_csv

pytestmark = pytest.mark.may_block

START = ExportJournal("model", "store", 3)


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> StateDirectory:
    folder = tmp_path_factory.mktemp("export")
    rows = [f'"u,{user}",i{(user * step) % 7}' for user in range(23) for step in (1, 2, 3)]
    assert train(folder / "s", "--interactions", write_csv(folder / "a.csv", "user_id,item_id", rows)) == 0
    return StateDirectory(folder / "s")


@pytest.fixture(scope="module")
def model(state) -> RankingModel:
    return RankingModel(artefact_of(state.folder))


@pytest.fixture
def small_chunks(monkeypatch) -> None:
    monkeypatch.setattr(exporting, "_CHUNK", 5)


async def write(
    state: StateDirectory, model: RankingModel, target: Path, start: ExportJournal = START, **more: Any
) -> ExportJournal:
    async with aclosing(open_store(store_of(state.folder))) as store:
        return await export(store, model, target, start=start, **more)


async def test_every_format_has_the_same_lists(state, model, tmp_path):
    """CSV, JSON lines and Parquet agree in users, ranks, items and scores; ids with commas are quoted."""
    for suffix in ("csv", "jsonl", "parquet"):
        assert (await write(state, model, tmp_path / f"a.{suffix}")).users == 23
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_bytes().splitlines()]
    expected = [
        (line["user_id"], rank, item["item_id"], item["score"])
        for line in lines
        for rank, item in enumerate(line["recommendations"], 1)
    ]
    with (tmp_path / "a.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["user_id", "rank", "item_id", "score"]
    assert [(user, int(rank), item, float(score)) for user, rank, item, score in rows] == expected
    assert [tuple(row.values()) for row in pq.read_table(tmp_path / "a.parquet").to_pylist()] == expected
    assert {"u,0", "u,22"} <= {user for user, *_ in expected}


class Killer:
    """Lets a number of steps on disk happen, and ends the export before the next one."""

    def __init__(self, patched: pytest.MonkeyPatch, *, after: int) -> None:
        self.left = after
        patched.setattr(os, "fsync", self.before(os.fsync))
        patched.setattr(Path, "replace", self.before(Path.replace))
        patched.setattr(Path, "unlink", self.before(Path.unlink))

    def before(self, step):
        def counted(*arguments, **keywords):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return step(*arguments, **keywords)

        return counted


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
async def test_an_export_killed_at_any_step_continues(state, model, tmp_path, suffix):
    """An export that ended before any of its steps on disk is completed by the next one, with the same bytes."""
    whole = tmp_path / f"whole.{suffix}"
    await write(state, model, whole)
    for kept in range(100):
        folder = tmp_path / str(kept)
        folder.mkdir()
        target = folder / f"a.{suffix}"
        with pytest.MonkeyPatch.context() as patched:
            Killer(patched, after=kept)
            try:
                await write(state, model, target)
                break
            except KeyboardInterrupt:
                pass
        # A write that was cut short leaves more bytes than the journal counts.
        with (folder / f"a.{suffix}.partial").open("ab") as partial:
            partial.write(b"torn")
        await write(state, model, target)
        assert target.read_bytes() == whole.read_bytes()
        assert [path.name for path in folder.iterdir()] == [target.name]
    assert kept > 15


@pytest.mark.usefixtures("small_chunks")
async def test_an_export_of_another_model_starts_again(state, model, tmp_path, monkeypatch):
    """The lists of two models, or of two lengths, are not mixed."""
    target = tmp_path / "a.jsonl"
    with monkeypatch.context() as patched:
        notes = 0

        def fail(*arguments):
            nonlocal notes
            notes += 1
            if notes == 3:
                raise KeyboardInterrupt
            return noted(*arguments)

        noted = exporting._note
        patched.setattr(exporting, "_note", fail)
        with pytest.raises(KeyboardInterrupt):
            await write(state, model, target)
    await write(state, model, target, ExportJournal("model", "store", 2))
    assert {len(json.loads(line)["recommendations"]) for line in target.read_bytes().splitlines()} == {2}


async def test_two_exports_do_not_write_one_file(state, model, tmp_path):
    """While one export writes, another one is refused, and the file is whole."""
    target, partial, refused = tmp_path / "a.csv", tmp_path / "a.csv.partial", []

    def try_another(users: int) -> None:
        with partial.open("ab") as out, pytest.raises(ExportError, match="another export writes this file"):
            exporting._hold(out, partial)
        refused.append(users)

    await write(state, model, target, progress=try_another)
    assert refused == [0, 23]
    assert len(target.read_text().splitlines()) == 1 + 23 * 3


async def test_an_export_that_another_one_has_completed_is_not_cut(state, model, tmp_path):
    """A file that was opened before the other export renamed it is not touched."""
    target, partial = tmp_path / "a.csv", tmp_path / "a.csv.partial"
    with partial.open("ab") as late:
        await write(state, model, target)
        with pytest.raises(ExportError, match="another export"):
            exporting._hold(late, partial)


async def test_a_folder_that_cannot_be_written_is_named(state, model, tmp_path):
    """The error names the file and says how to go on."""
    with pytest.raises(ExportError, match="no-such-folder.*check the folder and its free space"):
        await write(state, model, tmp_path / "no-such-folder/a.csv")


def test_the_verb_writes_the_file(state, tmp_path, capsys):
    """`./run.sh export` writes all users of the current store and says how many; other suffixes are refused."""
    target = tmp_path / "a.jsonl"
    assert run("export", "--top-k", 2, "--to", target, "--state-dir", state.folder) == 0
    assert f"{target}: 23 users, up to 2 items each" in capsys.readouterr().out
    assert len(target.read_bytes().splitlines()) == 23
    assert run("export", "--to", "a.txt") == 2
    assert "must end in .csv, .jsonl or .parquet" in capsys.readouterr().err
    assert run("export", "--to", target, "--state-dir", tmp_path / "none") == 1
    assert "nothing was trained here yet" in capsys.readouterr().err


def test_the_encoded_lists_are_those_of_the_wire():
    """A line of JSON has the bytes of the answer."""
    answer = wire.Recommendations("u", [wire.RankedItem("i", 1.0)])
    assert wire.encode(answer) == b'{"user_id":"u","recommendations":[{"item_id":"i","score":1.0}]}'


def test_the_lists_follow_the_rules_and_the_catalogue(tmp_path):
    """
    As those of an instance: pinned items come first. Items are absent that are denied, removed or unavailable, or that
    the user dislikes.
    """
    rows = [*(f"u{user},i{(user * step) % 7},view" for user in range(23) for step in (1, 2, 3)), "u0,i6,dislike"]
    items = [f"i{n},{'red' if n == 2 else 'blue'}" for n in range(7)]
    declared = '[events]\nview.weight = 1\ndislike.weight = -1\n[items.attributes.colour]\nkind = "categorical"\n[rules]\npins = ["i5"]\n'
    (tmp_path / "trained.toml").write_text(declared)
    (tmp_path / "served.toml").write_text(f'{declared}[[rules.deny]]\nattribute = "colour"\nany_of = ["red"]\n')
    data = ["--interactions", write_csv(tmp_path / "a.csv", "user_id,item_id,kind", rows)]
    data += ["--items", write_csv(tmp_path / "items.csv", "item_id,colour", items)]
    assert train(tmp_path / "s", *data, "--declaration", tmp_path / "trained.toml") == 0
    target = tmp_path / "a.jsonl"

    def lists(*words: object) -> list[list[str]]:
        assert run("export", "--to", target, *words, "--state-dir", tmp_path / "s") == 0
        lines = [json.loads(line) for line in target.read_bytes().splitlines()]
        return [[each["item_id"] for each in line["recommendations"]] for line in lines]

    found = lists()
    assert {*found[0]} == {"i1", "i2", "i3", "i4", "i5"}
    assert all(each.index("i5") == 0 for each in found if "i5" in each)
    assert {"i2", "i3", "i4", "i5"} <= {*chain(*found)}
    assert "i2" not in chain(*lists("--declaration", tmp_path / "served.toml"))
    put = [Entry("i3", REMOVED, 1), Entry("i4", available=False, available_us=1)]
    assert asyncio.run(put_entries(store_of(tmp_path / "s"), put)) == 2
    assert not {"i3", "i4"} & {*chain(*lists())}
