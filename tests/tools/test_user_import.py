"""`./run.sh users import`: a file changes attributes of users in a store, checked by the store's declaration."""

from pathlib import Path

import pytest

from recsys.features import UNKNOWN_FEATURES
from recsys.records import HistoryItem, UserRecord, imported
from tests.functions.test_user_updates import SHOP
from tests.trained import in_store, scan
from tools.cli.verbs import main

pytestmark = pytest.mark.may_block

ANN = UserRecord("ann", "25-34", attributes=imported({"city": ["Bern"]}), history=[HistoryItem("a", 1.0, 1)])


def fill(url: str) -> None:
    with_ann = {"population": UNKNOWN_FEATURES, "declaration": SHOP}
    in_store(url, lambda store: store.replace([ANN], **with_ann), create=True)


@pytest.fixture
def url(empty_store_url: str) -> str:
    fill(empty_store_url)
    return empty_store_url


def write(path: Path, text: str) -> str:
    path.write_text(text, "utf-8")
    return str(path)


def test_a_table_changes_the_attributes_that_it_names(url, tmp_path, capsys):
    """An empty cell leaves the value as it is. An erased user stays erased."""
    in_store(url, lambda store: store.erase("eve", at_us=1))
    file = write(tmp_path / "users.csv", "user_id,age,city,sizes\nann,61,,M|L\nbob,,Rom,\neve,,Rom,\n")
    assert main(["users", "import", file, "--store", url]) == 0
    assert capsys.readouterr().out == "users updated: 2, with newer values: 0, erased before: 1\n"
    ann, bob = in_store(url, scan)
    assert (ann.age_group, ann.user_attributes) == ("55+", {"city": ["Bern"], "sizes": ["M", "L"]})
    assert (bob.user_id, bob.user_attributes) == ("bob", {"city": ["Rom"]})


def test_the_columns_of_a_table_are_mapped(url, tmp_path):
    """A column that was mapped for a training is mapped in the same way here."""
    file = write(tmp_path / "users.csv", "who,city\nann,Rom\n")
    assert main(["users", "import", file, "--map", "user=who", "--store", url]) == 0
    (ann,) = in_store(url, scan)
    assert ann.user_attributes == {"city": ["Rom"]}


def test_json_lines_are_events(url, tmp_path):
    """No value removes an attribute, and the later of two lines counts."""
    lines = ['"city", "values": ["Rom"]', '"city", "values": []', '"sizes", "values": ["M"]']
    text = "\n".join(f'{{"user_id": "ann", "attributes": [{{"attribute": {each}}}]}}' for each in lines)
    assert main(["users", "import", write(tmp_path / "users.jsonl", text), "--store", url]) == 0
    (ann,) = in_store(url, scan)
    assert ann.user_attributes == {"sizes": ["M"]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("users.csv", "user_id,spent\nann,much\n", "users.csv:2: spent must be a number, not 'much'"),
        (
            "users.csv",
            "user_id,town\nann,Rom\n",
            "no user has a value of a declared attribute; declared are: age_group, ",
        ),
        ("users.csv", "user_id,city\n", "users.csv: no user has a value"),
        ("users.jsonl", '{"user_id": "ann"}\n', "users.jsonl:1: "),
        (
            "users.jsonl",
            '{"user_id":"ann","attributes":[{"attribute":"town","values":[]}]}\n',
            "declared are: age_group",
        ),
    ],
)
def test_a_faulty_file_changes_nothing(tmp_path, capsys, name, text, message):
    """The fault is named, with its line if it has one."""
    url = f"sqlite:///{tmp_path}/a.db"
    fill(url)
    assert main(["users", "import", write(tmp_path / name, text), "--store", url]) == 1
    assert message in capsys.readouterr().err
    assert in_store(url, scan) == [ANN]
