"""The production server as a process: start, drain under load, exit status."""

import errno
import json
import os
import signal
import socket
import subprocess
import threading

import httpx
import pytest

from chassis.server import drain as server
from localkn.processes import free_port
from tests.running import CLIENT, ROOT, Running, running, shell_command
from tests.waiting import LIMIT_S, eventually

pytestmark = pytest.mark.may_block

STORE = {"FEATURE_STORE_URL": "memory:"}


def run_until_exit(function: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        shell_command(function),
        cwd=ROOT,
        env={**os.environ, "AUTH": "off", "METRICS_PORT": "0", **env},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_both_entries_give_the_same_bytes():
    """The production server and the stock functions-framework command give the same answers, including errors."""
    with running("extract_features", STORE) as shell, running("extract_features", STORE, stock=True) as stock:
        bodies: list[object] = [{"user_id": "user_1"}, {"user_ids": ["a", "b"]}, {"user_id": 1}, []]
        for body in bodies:
            ours, theirs = shell.post(body), stock.post(body)
            assert (ours.status_code, ours.content) == (theirs.status_code, theirs.content)
            assert ours.headers["content-type"] == theirs.headers["content-type"]
        for path in ("/other", "/livez"):
            assert CLIENT.get(shell.url + path).content == CLIENT.get(stock.url + path).content


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_instance_with_status_0(number):
    """An idle instance that receives SIGTERM or SIGINT exits with status 0."""
    with running("extract_features", {**STORE, "DRAIN_LINGER_S": "0"}) as service:
        assert service.stop(number) == 0


def connect_repeatedly(address: tuple[str, int]) -> None:
    while True:
        socket.create_connection(address).close()


@pytest.mark.parametrize("keep_alive", [True, False], ids=["pooled", "one connection each"])
def test_sigterm_under_load_loses_no_request(keep_alive):
    """Every request whose connection was accepted gets a complete answer, with and without keep-alive."""
    lost: list[str] = []
    answered: list[int] = []

    def call_until_refused(service: Running) -> None:
        limits = httpx.Limits(max_keepalive_connections=8 if keep_alive else 0)
        with httpx.Client(limits=limits, timeout=LIMIT_S) as client:
            while True:
                try:
                    answered.append(client.post(service.url, json={"user_id": "u"}).status_code)
                except httpx.ConnectError:
                    return
                except httpx.HTTPError as error:
                    lost.append(repr(error))
                    return

    # On a busy machine, a caller may need more than the default half second to send its request.
    with running("extract_features", {**STORE, "DRAIN_LINGER_S": "10"}) as service:
        callers = [threading.Thread(target=call_until_refused, args=(service,)) for _ in range(8)]
        for caller in callers:
            caller.start()
        eventually(lambda: len(answered) >= 100 or lost)
        assert service.stop() == 0
        for caller in callers:
            caller.join()
    assert lost == []
    assert len(answered) >= 100
    assert set(answered) == {200}


def test_a_draining_instance_closes_kept_connections_after_an_answer():
    """After SIGTERM an open connection still gets its answer, which announces that the connection closes."""
    with running("extract_features", {**STORE, "DRAIN_LINGER_S": "10"}) as service:
        address = ("127.0.0.1", int(service.url.rpartition(":")[2]))
        with socket.create_connection(address) as open_before:
            service.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionError):
                connect_repeatedly(address)
            open_before.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            with open_before.makefile("rb") as answers:
                answer = answers.read().lower()
        assert answer.startswith(b"http/1.1 503")
        assert b"connection: close" in answer
        assert service.process.wait(timeout=LIMIT_S) == 0


class AcceptQueue:
    """A listener whose accept queue holds the given sockets and errors."""

    def __init__(self, *found: socket.socket | OSError) -> None:
        self._found = list(found)

    def accept(self) -> tuple[socket.socket, None]:
        found = self._found.pop(0)
        if isinstance(found, OSError):
            raise found
        return found, None


@pytest.mark.parametrize(
    "end", [BlockingIOError(), OSError(errno.EMFILE, "too many open files")], ids=["empty", "full"]
)
def test_draining_continues_past_errors_in_the_accept_queue(end):
    """The drain accepts the connections after an aborted one, and stops without error when no descriptor is free."""
    with socket.socket() as one, socket.socket() as other:
        queue = AcceptQueue(one, ConnectionAbortedError(), other, end)
        assert list(server._accept_all(queue)) == [one, other]  # type: ignore[arg-type]


def test_invalid_settings_are_listed_and_exit_with_2():
    """The server names every invalid setting before it opens anything."""
    ended = run_until_exit(
        "rank_items", {"PORT": "x", "MAX_BATCH_SIZE": "64", "MAX_QUEUE_SIZE": "10", "MODEL_PATH": ""}
    )
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    assert len(lines) == 3
    assert "PORT must be an integer" in ended.stderr
    assert "MODEL_PATH is not set" in ended.stderr
    assert "MAX_QUEUE_SIZE (10) below MAX_BATCH_SIZE (64)" in ended.stderr


def test_a_missing_artefact_exits_with_1(tmp_path):
    """An instance that can never become ready exits, and one line of its log says why, without a traceback."""
    ended = run_until_exit("rank_items", {"PORT": str(free_port()), "MODEL_PATH": str(tmp_path / "none")})
    assert ended.returncode == 1
    (failed,) = [json.loads(line) for line in ended.stderr.splitlines() if "start_failed" in line]
    assert failed["reason"].startswith(f"no model at {tmp_path}/none; set MODEL_PATH to a trained model")
    assert "Traceback" not in ended.stderr


def test_a_taken_port_exits_with_1():
    """The server names a port that is already in use in one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run_until_exit("extract_features", {**STORE, "PORT": str(taken.getsockname()[1])})
    assert ended.returncode == 1
    assert "cannot listen on 127.0.0.1" in ended.stderr
