"""The pipeline that `./run.sh recommend` asks, and its messages about answers without recommendations."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localkn.processes import free_port
from tests.http_server import HttpHandler, HttpServer
from tools.cli.verbs import main

pytestmark = pytest.mark.may_block


class Answers(HttpServer):
    """A server that answers everything alike."""

    status, body = 200, b'{"recommendations": [{"item_id": "a", "score": 1.0}]}'


class Handler(HttpHandler):
    """Answers as its server says."""

    def post(self) -> None:
        assert isinstance(self.server, Answers)
        self.body()
        self.answer(self.server.status, self.server.body)


@pytest.fixture
def server() -> Iterator[Answers]:
    with Answers(Handler) as server:
        yield server


def test_a_port_that_is_named_is_asked(server, tmp_path, monkeypatch, capsys):
    """Not the platform of the state directory: what is said explicitly wins."""
    monkeypatch.setattr("localkn.address.running_url", lambda _: f"http://127.0.0.1:{free_port()}")
    assert main(["recommend", "u", "--port", str(server.server_port), "--state-dir", str(tmp_path)]) == 0
    assert "1.000" in capsys.readouterr().out
    assert main(["recommend", "u", "--state-dir", str(tmp_path)]) == 1


def test_an_encoding_without_the_characters_escapes_them(server, tmp_path):
    """A terminal or a pipe whose encoding is ASCII."""
    server.body = '{"recommendations": [{"item_id": "é☕", "score": 1.0}]}'.encode()
    words = ["recommend", "u", "--port", str(server.server_port), "--state-dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "tools.cli", *words],
        env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()[2], done.stderr) == (0, "\\xe9\\u2615", "")


def test_without_a_port_the_running_pipeline_is_asked(server, tmp_path, monkeypatch):
    """Wherever the platform of the state directory listens."""
    monkeypatch.setattr("localkn.address.running_url", lambda _: f"http://127.0.0.1:{server.server_port}")
    assert main(["recommend", "u", "--state-dir", str(tmp_path)]) == 0


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"errors": 5}', b"\xff"])
@pytest.mark.parametrize("status", [200, 500])
def test_what_is_no_pipeline_is_said_to_be_none(server, tmp_path: Path, capsys, body, status):
    """Another program on that port, or a proxy's page."""
    server.status, server.body = status, body
    assert main(["recommend", "u", "--port", str(server.server_port), "--state-dir", str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "words", [["--url", "nope"], ["--url", "http://"], ["--url", "http://a", "--port", "1"], ["--port", "x"]]
)
def test_wrong_arguments_are_exit_status_2(words):
    """A malformed URL, a malformed port, and a URL together with a port end with exit status 2."""
    assert main(["recommend", "u", *words]) == 2
