"""A copy into a Redis with a password, as in production."""

from pathlib import Path

import pytest

from tests.stores.test_copy import fill
from tests.trained import in_store, scan
from tools.bench.redis_server import redis_running
from tools.cli.verbs import main

pytestmark = pytest.mark.may_block


def test_the_password_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """With FEATURE_STORE_PASSWORD the copy succeeds; without it, the error says that the password is missing."""
    source = f"sqlite:///{tmp_path}/one.db"
    fill(source)
    with redis_running(tmp_path, "--requirepass", "s3cret") as server:
        words = ["store", "copy", "--from", source, "--to", server.url]
        assert main(words) == 1
        assert "s3cret" not in capsys.readouterr().err
        monkeypatch.setenv("FEATURE_STORE_PASSWORD", "s3cret")
        assert main(words) == 0
        (copied,) = in_store(server.url, scan, password="s3cret")
        assert copied.user_id == "ann"
