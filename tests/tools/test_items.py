"""`./run.sh items import`, and the catalogue in trainings, copies and new stores."""

import asyncio
import shutil
from pathlib import Path

import pytest

from offline.catalogue import put_entries, read_entries
from recstore.catalogue.entries import REMOVED, Entry
from recsys.items import Item
from tests.trained import artefact_of, run, store_of, train, write_csv

pytestmark = pytest.mark.may_block


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Return a state directory with a model of items of two kinds."""
    folder: Path = tmp_path_factory.mktemp("items")
    rows = [f"u{n},{'tb'[n % 2]}{(n + k) % 12},{1_700_000_000 + 1000 * k}" for n in range(40) for k in range(6)]
    write_csv(folder / "a.csv", "user_id,item_id,timestamp", rows)
    lines = [f"{kind}{n},Title {n},{'tea' if kind == 't' else 'book'}" for kind in "tb" for n in range(12)]
    write_csv(folder / "items.csv", "item_id,title,kind", lines)
    assert train(folder / "state", *files(folder)) == 0
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "state", tmp_path / "state"))


def files(folder: Path) -> list[str]:
    return ["--interactions", str(folder / "a.csv"), "--items", str(folder / "items.csv")]


def bring(folder: Path, file: Path, *words: str) -> int:
    return run("items", "import", file, "--state-dir", folder, *words)


def entries(folder: Path) -> dict[str, Entry]:
    return asyncio.run(read_entries(store_of(folder)))


def put(folder: Path, *changed: Entry) -> None:
    asyncio.run(put_entries(store_of(folder), changed))


def items(folder: Path) -> dict[str, Item]:
    return {item.item_id: item for item in artefact_of(folder).items}


def test_a_table_changes_items(folder, tmp_path, capsys):
    """New items, changed ones and their availability get into the catalogue; items that cannot be placed are named."""
    (tmp_path / "new.csv").write_text(
        "item_id;title;kind;available\nn1;New;tea|rare;\nt1;Gone;tea;false\nn2;Odd;rare;yes\n"
    )
    assert bring(folder, tmp_path / "new.csv") == 0
    told = capsys.readouterr()
    assert told.out == "items changed: 3, as they were: 0\n"
    assert told.err.endswith("after the next training only (1): n2\n")
    found = entries(folder)
    assert found["n1"].item() == Item("n1", "New", {"kind": ("tea", "rare")})
    assert [found[item].is_offered for item in ("n1", "t1", "n2")] == [True, False, True]


def test_the_columns_of_a_table_are_mapped(folder, tmp_path):
    """A column that was mapped for a training is mapped in the same way here."""
    (tmp_path / "new.csv").write_text("sku,label,kind\nn1,New,tea\n")
    assert bring(folder, tmp_path / "new.csv", "--map", "item=sku,title=label") == 0
    assert entries(folder)["n1"].item() == Item("n1", "New", {"kind": ("tea",)})


def test_json_lines_change_parts(folder, tmp_path, capsys):
    """A line has the data of the event, so it may change the availability alone."""
    (tmp_path / "a.jsonl").write_text('{"item_id": "t1", "available": false}\n\n{"item_id": "t2", "title": "x"}\n')
    assert bring(folder, tmp_path / "a.jsonl") == 0
    found = entries(folder)
    assert (found["t1"].item(), found["t1"].is_offered) == (None, False)
    assert found["t2"].item() == Item("t2", "x")


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (("a.csv", "item_id,kind,colour,size\nn1,tea,red,4\n"), "the attributes colour, size, only kind"),
        (
            ("a.csv", "item_id,kind,available\nn1,tea,perhaps\n"),
            "item n1: available must be true or false, not 'perhaps'",
        ),
        (("a.jsonl", '{"item_id": "n1"}\n{\n'), "a.jsonl:1: $ must have at least one of"),
        (("a.jsonl", '{"item_id": "n1", "title": "x"}\n[]\n'), "nothing was imported"),
    ],
)
def test_faulty_files_change_nothing(folder, tmp_path, capsys, file, reason):
    """All faults are listed, and no item changes."""
    name, text = file
    (tmp_path / name).write_text(text)
    assert bring(folder, tmp_path / name) == 1
    assert reason in capsys.readouterr().err
    assert entries(folder) == {}


def test_a_training_learns_the_changes(folder, tmp_path):
    """A training on the store has new items and titles, and no removed item that no user knows."""
    (tmp_path / "new.csv").write_text("item_id,title,kind\nn1,New,tea\nn2,Removed,tea\nt1,Changed,book\n")
    assert bring(folder, tmp_path / "new.csv") == 0
    put(folder, Entry("n2", REMOVED, 4_000_000_000_000_000), Entry("t2", REMOVED, 4_000_000_000_000_000))
    assert train(folder, "--from-store", "--refresh") == 0
    found = items(folder)
    assert found["n1"].title == "New"
    assert found["t1"] == Item("t1", "Changed", {"kind": ("book",)})
    assert "n2" not in found
    assert "t2" in found


def test_a_new_import_keeps_what_it_does_not_describe(folder, trained, tmp_path):
    """The catalogue moves to the store of a new import; items of its file are described by the file."""
    (tmp_path / "new.csv").write_text("item_id,title,kind,available\nn1,New,tea,\nt1,Changed,book,false\n")
    assert bring(folder, tmp_path / "new.csv") == 0
    assert train(folder, *files(trained)) == 0
    found = entries(folder)
    assert found["n1"].item() == Item("n1", "New", {"kind": ("tea",)})
    assert (found["t1"].item(), found["t1"].is_offered) == (None, False)


def test_an_items_file_of_a_training_is_newer_than_the_catalogue(folder, tmp_path):
    """`train --from-store --items` replaces descriptions, and the catalogue does not undo it."""
    (tmp_path / "new.csv").write_text("item_id,title,kind\nt1,Changed,book\n")
    assert bring(folder, tmp_path / "new.csv") == 0
    (tmp_path / "newer.csv").write_text("item_id,title,kind\nt1,Again,tea\n")
    assert train(folder, "--from-store", "--refresh", "--items", tmp_path / "newer.csv") == 0
    assert items(folder)["t1"].title == "Again"
    assert entries(folder)["t1"].item() == items(folder)["t1"]


def test_a_copy_carries_the_catalogue(folder, tmp_path):
    """`store copy` brings the changes of items along."""
    put(folder, Entry("t1", available=False, available_us=5))
    copied = f"sqlite:///{tmp_path}/copy.db"
    assert run("store", "copy", "--from", store_of(folder), "--to", copied) == 0
    assert asyncio.run(read_entries(copied)) == entries(folder)


DECLARATION = """
[events.view]
weight = 1
counter = "views"

[items.attributes]
title = { kind = "text", column = "label" }
kind = { kind = "categorical" }
since = { kind = "time" }
price = { kind = "number", column = "EUR" }
"""


@pytest.fixture(scope="module")
def declared(trained: Path, tmp_path_factory) -> Path:
    """Return a state directory whose declaration has numbers and times."""
    folder: Path = tmp_path_factory.mktemp("declared")
    (folder / "shop.toml").write_text(DECLARATION)
    lines = [f"{kind}{n},Title {n},{kind},2026-01-{n + 1:02},{n}" for kind in "tb" for n in range(12)]
    items = write_csv(folder / "items.csv", "item_id,label,kind,since,EUR", lines)
    given = ["--interactions", trained / "a.csv", "--items", items, "--declaration", folder / "shop.toml"]
    assert train(folder / "state", *given) == 0
    return folder / "state"


def test_changes_are_read_by_the_declaration_of_the_model(declared, tmp_path, capsys):
    """Columns, numbers and times of a table, and values in JSON lines, become what a training makes of them."""
    (tmp_path / "new.csv").write_text("item_id,label,kind,since,EUR,available\nn1,New,t,2026-01-02,7,no\n")
    (tmp_path / "new.jsonl").write_text(
        '{"item_id": "n2", "attributes": [{"attribute": "since", "values": ["2026-01-02"]},'
        ' {"attribute": "price", "values": ["7"]}]}\n'
    )
    (tmp_path / "faulty.jsonl").write_text(
        '{"item_id": "n3", "attributes": [{"attribute": "price", "values": ["cheap"]}]}\n'
    )
    assert bring(declared, tmp_path / "new.csv") == 0
    assert bring(declared, tmp_path / "new.jsonl") == 0
    capsys.readouterr()
    assert bring(declared, tmp_path / "faulty.jsonl") == 1
    assert "faulty.jsonl:1: $.attributes[0].values price must be a number, not 'cheap'" in capsys.readouterr().err
    found = entries(declared)
    numbers: dict[str, tuple[str, ...]] = {"since": ("1767312000.0",), "price": ("7.0",)}
    assert found["n1"].item() == Item("n1", "New", {"kind": ("t",), **numbers})
    assert (found["n2"].item(), found["n1"].is_offered) == (Item("n2", "", numbers), False)
    assert "n3" not in found
