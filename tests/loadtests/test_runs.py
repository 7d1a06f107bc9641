"""Complete runs against a stand-in for the pipeline that can misbehave."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.http_server import HttpHandler, HttpServer
from tests.running import ROOT

pytestmark = [pytest.mark.scenario, pytest.mark.alone, pytest.mark.may_block, pytest.mark.timeout(180)]

# The stand-in accepts every request, so invalid requests that it should refuse are tolerated here.
LENIENT = {"MAX_FAIL_RATIO": "1", "MAX_WRONG_ANSWERS": "1000000", "MAX_P50_MS": "60000", "MAX_P99_MS": "60000"}


class StandIn(HttpServer):
    """A stand-in for recommend that after *sound* answers sends *then* instead, stalls once, or closes connections."""

    request_queue_size = 512

    def __init__(self, *, sound: int = 10**9, then: bytes = b"", stall_s: float = 0.0, hang_up: bool = False) -> None:
        super().__init__(_Handler)
        self.sound, self.then, self.stall_s, self.hang_up = sound, then, stall_s, hang_up
        self.answered = 0
        self.counting = threading.Lock()
        self.stalled_until = 0.0

    def body_for(self, user_id: str) -> bytes:
        with self.counting:
            self.answered += 1
            turned = self.answered > self.sound
            if turned and self.stall_s and not self.stalled_until:
                self.stalled_until = time.monotonic() + self.stall_s
        time.sleep(max(0.0, self.stalled_until - time.monotonic()))
        if turned and self.then:
            return self.then.replace(b"USER", user_id.encode())
        items = [{"item_id": f"item_{number}", "score": 1 - number / 10} for number in range(5)]
        return json.dumps({"user_id": user_id, "recommendations": items}).encode()


class _Handler(HttpHandler):
    server: StandIn

    def post(self) -> None:
        try:
            user_id = str(json.loads(self.body())["user_id"])
        except (ValueError, KeyError, TypeError):
            user_id = ""
        body = self.server.body_for(user_id)
        if self.server.hang_up and self.server.answered > self.server.sound:
            self.close_connection = True
            return
        self.answer(200, body, Server_Timing='total;dur=1.0, model;dur=0.5, batch;desc="2"')


def load(url: str, folder: Path, *words: str, status: int = 0, **limits: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tools.cli", "load", "--state-dir", str(folder), "--url", url]
    ended = subprocess.run(
        [*command, "--report", str(folder), *words],
        cwd=ROOT, env={**os.environ, **LENIENT, **limits}, capture_output=True, text=True, timeout=80, check=False,
    )  # fmt: skip
    assert ended.returncode == status, ended.stdout + ended.stderr
    result: dict[str, Any] = json.loads((folder / "report.json").read_text())
    assert ended.stdout.strip() == result["verdict"]
    return result


def test_an_open_loop_shows_a_stall_that_a_closed_loop_hides(tmp_path):
    """
    The server stalls for half of the run: a closed loop sees one slow answer per caller, an open loop many.

    Each request that is due during the stall waits for the rest of it, so half of the requests are slow.
    """
    with StandIn(sound=30, stall_s=2.0) as stand_in:
        opened = load(stand_in.url, tmp_path / "open", "--rate", "40", "--arrivals", "constant", "--duration", "4")
    with StandIn(sound=30, stall_s=2.0) as stand_in:
        closed = load(stand_in.url, tmp_path / "closed", "--users", "1", "--think-ms", "20", "--duration", "4")
    assert opened["summary"]["p95_ms"] > 1000
    assert closed["summary"]["p95_ms"] < opened["summary"]["p95_ms"] / 2
    assert opened["summary"]["requests"] == 159


@pytest.mark.parametrize(
    ("then", "fault"),
    [
        (b'{"user_id":"USER","recommendations":[{"item_id":"a","score":0.1},{"item_id":"b","score":0.2}]}',
         "scores not in descending order"),
        (b'{"user_id":"somebody","recommendations":[{"item_id":"a","score":0.1}]}', "answer for another user"),
        (b'{"user_id":"USER"}', "malformed answer: KeyError"),
    ],
)  # fmt: skip
def test_wrong_answers_fail_a_run(then, fault, tmp_path):
    """A run fails if the pipeline starts to send wrong answers, however few."""
    with StandIn(sound=20, then=then) as stand_in:
        result = load(stand_in.url, tmp_path, "--users", "2", "--duration", "2", status=1, MAX_WRONG_ANSWERS="0")
    assert result["verdict"].startswith("FAIL: MAX_WRONG_ANSWERS ")
    assert fault in {each["fault"] for each in result["faults"]}
    assert result["batches"]


def test_closed_connections_fail_a_run(tmp_path):
    """A connection that closes without an answer counts as a failed request."""
    with StandIn(sound=20, hang_up=True) as stand_in:
        result = load(stand_in.url, tmp_path, "--rate", "20", "--duration", "3", status=1, MAX_FAIL_RATIO="0.01")
    assert result["verdict"].startswith("FAIL: MAX_FAIL_RATIO ")
    assert any(each["fault"].startswith("no answer: ") for each in result["faults"])
    assert result["summary"]["requests"] > 30


def test_an_interrupted_run_leaves_no_report(tmp_path):
    """Ctrl-C ends a run with one line and without a report."""
    with StandIn() as stand_in:
        command = [sys.executable, "-m", "tools.cli", "load", "--state-dir", str(tmp_path), "--url", stand_in.url]
        running = subprocess.Popen(
            [*command, "--report", str(tmp_path / "report"), "--duration", "60", "--users", "2"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert running.stderr is not None
        # The first line of progress shows that the run has started.
        running.stderr.readline()
        running.send_signal(signal.SIGINT)
        said, told = running.communicate(timeout=60)
    assert running.returncode == 130
    assert told.strip().splitlines()[-1].startswith("stopped;")
    assert "Traceback" not in said + told
    assert not (tmp_path / "report").exists()
