"""The guide "Import a file": its commands do what the page says, and its table names the columns that are known."""

import shlex

import pytest

from offline.reading.columns import NAMES
from offline.state import StateDirectory
from tests.documentation.pages import ROOT, block, blocks
from tools.cli.verbs import main as run_verb

GUIDE = ROOT / "docs/how-to/import-a-file.md"

pytestmark = pytest.mark.may_block


def test_the_commands_refuse_the_file_and_then_leave_out_its_faulty_line(tmp_path, monkeypatch, capsys):
    """The first command prints the refusal of the page; the second one trains."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "orders.txt").write_text(block(GUIDE, "orders.txt"), "utf-8")
    commands = [shlex.split(each.code) for each in blocks(GUIDE) if each.language == "sh"]
    assert [command[:2] for command in commands] == [["./run.sh", "train"]] * 2
    refused, accepted = (run_verb(["train", *command[2:], "--state-dir", "state"]) for command in commands)
    assert block(GUIDE, "refusal") in capsys.readouterr().err
    assert (refused, accepted) == (1, 0)
    assert StateDirectory(tmp_path / "state").environment()


def test_the_page_lists_every_name_of_a_column():
    """Each name that `train` knows stands on the page."""
    page = GUIDE.read_text("utf-8")
    assert [name for names in NAMES.values() for name in names if f"`{name}`" not in page] == []
