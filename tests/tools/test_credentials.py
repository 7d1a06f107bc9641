"""The token files of `rollout` and `acceptance`."""

from pathlib import Path

import pytest

from tools.cli.verbs import main
from tools.deployment.credentials import read_token

pytestmark = pytest.mark.may_block


def test_the_first_valid_token_is_sent(tmp_path: Path) -> None:
    """The file has the form of the functions' own: comments and expired tokens do not count."""
    path = tmp_path / "token"
    path.write_text("# rotated\nold 2020-01-01T00:00:00Z\nnew 2999-01-01T00:00:00Z # ours\nother\n")
    assert read_token(path) == "new"
    assert read_token(None) is None


@pytest.mark.parametrize("content", ["", "\n", "# none\n", "old 2020-01-01T00:00:00Z\n"])
def test_a_file_without_a_token_is_an_error(tmp_path: Path, content: str, capsys, monkeypatch) -> None:
    """Both commands name the file."""
    path = tmp_path / "token"
    path.write_text(content)
    words = ["--token-file", str(path), "--state-dir", str(tmp_path)]
    monkeypatch.setattr("tools.acceptance.verb._door", lambda *_, **__: None)
    for command in (["acceptance"], ["rollout", "rank-items", "--env", "A=1"]):
        assert main([*command, *words]) == 1
        assert f"{path}: has no valid token" in capsys.readouterr().err
