"""The guide "Declare your data": its files and commands do what the page says."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from localkn.processes import free_port
from offline.state import StateDirectory, StateError
from recsys.declaration.reader import DEFAULT, parse_declaration, read_declaration
from recsys.declaration.types import AttributeKind
from tests.documentation.pages import ROOT, block, blocks
from tests.e2e.verbs import assert_none_left, verb
from tests.running import CLIENT
from tests.waiting import eventually
from tools.cli.verbs import main as run_verb

GUIDE = ROOT / "docs/how-to/declare-your-data.md"
FILES = ("recsys.toml", "events.csv", "items.csv", "users.csv", "faulty.toml")

pytestmark = [pytest.mark.may_block, pytest.mark.timeout(300)]


def commands() -> list[list[str]]:
    code = "".join(each.code for each in blocks(GUIDE) if each.language == "sh")
    return [shlex.split(line) for line in code.splitlines()]


SHOW, CHECK, TRAIN, UP, ASK, SEND, USER, UPDATE, CONTEXT = commands()


def write(folder: Path) -> None:
    for title in FILES:
        (folder / title).write_text(block(GUIDE, title), "utf-8")


def test_the_commands_check_and_train(tmp_path, monkeypatch, capsys):
    """`show` prints the demo's file, `check` finds no fault in the page's, and `train` makes a model by it."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    assert run_verb(SHOW[1:]) == 0
    assert capsys.readouterr().out == DEFAULT.read_text("utf-8")
    assert run_verb(CHECK[1:]) == 0
    assert "recsys.toml: no faults; events: view 1, add_to_cart 3" in capsys.readouterr().out
    assert run_verb([*TRAIN[1:], "--state-dir", "state"]) == 0
    state = StateDirectory(tmp_path / "state")
    assert state.declaration(state.require_current()) == read_declaration(tmp_path / "recsys.toml")


def test_up_refuses_the_declaration_of_other_events_and_takes_other_rules(tmp_path, monkeypatch):
    """The settings that `up` gives to the functions name the file's copy, or the field that differs."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    assert run_verb([*TRAIN[1:], "--state-dir", "state"]) == 0
    state, text = StateDirectory(tmp_path / "state"), block(GUIDE, "recsys.toml")
    with pytest.raises(StateError, match="events.return.weight is -5.0 in the model and -2.0 in --declaration"):
        state.environment(declaration=parse_declaration(text.replace("weight = -5", "weight = -2"), "a.toml"))
    ruled = parse_declaration(text.replace("caps = { brand = 3 }", "caps = { brand = 1 }"), "a.toml")
    settings = dict(each.partition(":")[2].split("=", 1) for each in state.environment(declaration=ruled))
    assert read_declaration(Path(settings["RECSYS_DECLARATION"])) == ruled


def test_the_faulty_file_has_the_faults_of_the_page(tmp_path, monkeypatch, capsys):
    """`check` prints them, and `train` refuses the file with the same lines."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    assert run_verb(["declaration", "check", "faulty.toml"]) == 1
    assert capsys.readouterr().err == block(GUIDE, "faults")
    assert run_verb(["train", "--declaration", "faulty.toml"]) == 1
    assert capsys.readouterr().err == block(GUIDE, "faults")
    assert not (tmp_path / ".recsys").exists()


def test_the_variable_names_the_declaration_too(tmp_path, monkeypatch, capsys):
    """RECSYS_DECLARATION is the option's default; the demo data refuse other events."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    monkeypatch.setenv("RECSYS_DECLARATION", "recsys.toml")
    assert run_verb(["train"]) == 1
    assert "in the demo data" in (said := capsys.readouterr().err)
    assert "name your own data with --interactions" in said


def test_the_page_names_every_kind_of_attribute():
    """Each kind has a row in the table."""
    page = GUIDE.read_text("utf-8")
    assert [kind for kind in get_args(AttributeKind) if f"\n| `{kind}` |" not in page] == []


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    folder, port = tmp_path_factory.mktemp("guide"), free_port()
    write(folder)
    place = ["--state-dir", str(folder / "state")]
    verb(*[str(folder / word) if word in FILES else word for word in TRAIN[1:]], *place)
    verb(*UP[1:], "--port", str(port), *place)
    yield folder / "state", port
    verb("down", *place)
    assert_none_left(folder / "state")


@pytest.mark.scenario
def test_the_pipeline_filters_and_learns_by_the_declaration(up):
    """The page's request gets items of the filter, and its event takes an item out of the lists of its user."""
    state, port = up
    place = ["--state-dir", str(state)]
    url = f"http://127.0.0.1:{port}"
    answer = CLIENT.post(url, json=json.loads(ASK[ASK.index("-d") + 1]))
    assert answer.status_code == 200, answer.text
    assert [each["item_id"] for each in answer.json()["recommendations"]] == ["boots"]
    verb(*SEND[1:], *place)
    eventually(lambda: "avoided items          boots" in verb(*USER[1:], *place).stdout)
    dan = CLIENT.post(url, json={"user_id": "dan"}).json()["recommendations"]
    assert "boots" not in [each["item_id"] for each in dan]
    verb(*UPDATE[1:], *place)
    eventually(lambda: "attribute city         Basel" in verb("users", "show", "ann", *place).stdout)
    assert len(verb(*CONTEXT[1:], *place).stdout.splitlines()) >= 1
    report = verb("doctor", "--port", str(port), *place).stdout
    assert "model and store follow one declaration" in report
