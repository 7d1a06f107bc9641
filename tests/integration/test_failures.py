"""What breaks in production, done to real processes: the caller gets an answer in time, and soon all is well again."""

import contextlib
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.integration.conftest import DemoState
from tests.running import Running, running, take_port

pytestmark = pytest.mark.may_block

FEATURES = {"age_group": "25-34", "avg_session_duration": 1.0, "total_purchases": 1, "engagement_score": 0.5}
RANK = {"features": FEATURES, "history": ["item_1"], "top_k": 3}
BUDGET_S = 0.5
GRACE_S = 0.05
WHOLE_AGAIN_S = 2.0


class Stand:
    """A pipeline of its own, whose hops can be exchanged for something broken on the same port."""

    def __init__(self, state: DemoState, folder: Path, stack: ExitStack) -> None:
        self._stack = stack
        # Made once: a client of its own for each call would cost as much as the grace allows.
        self._client = stack.enter_context(httpx.Client(timeout=10, limits=httpx.Limits(max_keepalive_connections=0)))
        store = folder / "store.db"
        store.write_bytes(Path(state.store_url.removeprefix("sqlite:///")).read_bytes())
        self.store = store
        self.env = {
            "extract_features": {"FEATURE_STORE_URL": f"sqlite:///{store}"},
            "rank_items": {"MODEL_PATH": str(state.model_path)},
        }
        self.hops = {name: self._start(name, take_port()) for name in self.env}
        self.env["recommend"] = {
            "EXTRACT_FEATURES_URL": self.hops["extract_features"].url,
            "RANK_ITEMS_URL": self.hops["rank_items"].url,
            "POPULAR_LIST_PATH": str(folder / "popular.json"),
        }
        self.recommend = self._start("recommend", take_port())

    def _start(self, name: str, port: int) -> Running:
        return self._stack.enter_context(running(name, self.env[name], port=port))

    def revive(self, name: str) -> None:
        self.hops[name] = self._start(name, self.hops[name].port)

    def restart_recommend(self) -> None:
        self.recommend.stop(signal.SIGKILL)
        self.recommend = self._start("recommend", self.recommend.port)

    def kill(self, name: str) -> None:
        self.hops[name].stop(signal.SIGKILL)

    def mend(self) -> None:
        for name, hop in self.hops.items():
            if hop.process.poll() is not None:
                self.revive(name)
        self.expect_whole_soon()

    def ask(self, **headers: str) -> tuple[httpx.Response, float]:
        began = time.monotonic()
        answer = self._client.post(
            self.recommend.url,
            json={"user_id": "user_42"},
            headers={"x-request-timeout-ms": str(int(BUDGET_S * 1000)), **headers},
        )
        return answer, time.monotonic() - began

    def expect_degraded(self, *hops: str, times: int = 12) -> None:
        """Every answer is there in time, is a list of items, and names the hops that failed."""
        for _ in range(times):
            answer, took_s = self.ask()
            assert answer.status_code == 200, answer.text
            assert answer.json().get("degraded", []) == list(hops)
            assert len(answer.json()["recommendations"]) == 5
            assert took_s <= BUDGET_S + GRACE_S

    def expect_whole_soon(self) -> None:
        deadline = time.monotonic() + WHOLE_AGAIN_S
        while time.monotonic() < deadline:
            answer, _ = self.ask()
            assert answer.status_code == 200
            if "degraded" not in answer.json():
                return
            time.sleep(0.02)
        raise AssertionError(f"still degraded: {answer.text}")


@pytest.fixture(scope="module")
def shared_stand(demo_state: DemoState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with ExitStack() as stack:
        yield Stand(demo_state, tmp_path_factory.mktemp("stand"), stack)


@pytest.fixture
def stand(shared_stand: Stand) -> Stand:
    """The pipeline, whole, whatever the test before did to it."""
    shared_stand.mend()
    return shared_stand


@contextmanager
def listening(port: int, talk: Callable[[socket.socket], None]) -> Iterator[None]:
    """Something that is no function listens on *port* and treats each connection as *talk* does."""
    deadline = time.monotonic() + 5
    while True:
        try:
            listener = socket.create_server(("127.0.0.1", port))
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    listener.settimeout(0.05)
    stop = threading.Event()
    connections: list[socket.socket] = []

    def accept() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            connections.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            try:
                talk(connection)
            except OSError:
                return

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield
    finally:
        stop.set()
        acceptor.join()
        listener.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def talk_garbage(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"\x00\x01 certainly not HTTP\r\n\r\n")


def talk_nonsense(connection: socket.socket) -> None:
    while connection.recv(65536):
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n<html></html>")


def talk_errors(connection: socket.socket) -> None:
    while connection.recv(65536):
        connection.sendall(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n")


def hang_up(connection: socket.socket) -> None:
    connection.recv(65536)


HOPS = pytest.mark.parametrize(("function", "hop"), [("extract_features", "features"), ("rank_items", "ranking")])


@HOPS
def test_killed(stand, function, hop):
    """A function killed outright: degraded answers in time, whole again when it is back."""
    stand.kill(function)
    stand.expect_degraded(hop)
    stand.revive(function)
    stand.expect_whole_soon()


@HOPS
def test_hung(stand, function, hop):
    """A function that takes requests and never answers costs its share of the budget, then nothing."""
    os.kill(stand.hops[function].process.pid, signal.SIGSTOP)
    try:
        stand.expect_degraded(hop, times=8)
    finally:
        os.kill(stand.hops[function].process.pid, signal.SIGCONT)
    stand.expect_whole_soon()


@HOPS
@pytest.mark.parametrize("talk", [talk_garbage, talk_nonsense, talk_errors, hang_up])
def test_answering_garbage(stand, function, hop, talk):
    """Bytes that are no HTTP, HTTP that is no answer, errors and hang-ups are all the same: a hop that failed."""
    stand.kill(function)
    with listening(stand.hops[function].port, talk):
        stand.expect_degraded(hop)
    stand.revive(function)
    stand.expect_whole_soon()


@HOPS
def test_answering_slowly(stand, function, hop):
    """A hop slower than its share is given up; one that is slow within it is waited for."""
    stand.kill(function)

    def slow(connection: socket.socket) -> None:
        connection.recv(65536)
        time.sleep(1.0)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    with listening(stand.hops[function].port, slow):
        stand.expect_degraded(hop, times=6)
    stand.revive(function)
    stand.expect_whole_soon()


def test_both_killed(stand):
    """Without any hop the last-known-good list is shown, also by a recommend that has just been started."""
    for function in stand.hops:
        stand.kill(function)
    stand.expect_degraded("features", "ranking")
    stand.restart_recommend()
    stand.expect_degraded("features", "ranking")
    for function in stand.hops:
        stand.revive(function)
    stand.expect_whole_soon()


def test_the_store_locked(stand):
    """A store somebody holds exclusively: ranking goes on without features."""
    holder = sqlite3.connect(stand.store, isolation_level=None)
    stand.hops["extract_features"].stop(signal.SIGKILL)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    stand.expect_degraded("features")
    holder.execute("COMMIT")
    holder.close()
    stand.revive("extract_features")
    stand.expect_whole_soon()


def test_the_artefact_gone(stand, tmp_path):
    """A ranker that restarts without its artefact never gets ready; answers go on from the popular list."""
    model = Path(stand.env["rank_items"]["MODEL_PATH"])
    stand.kill("rank_items")
    elsewhere = model.with_name("elsewhere")
    model.rename(elsewhere)
    try:
        with pytest.raises(AssertionError, match="No such file"):
            stand.revive("rank_items")
        stand.expect_degraded("ranking")
    finally:
        elsewhere.rename(model)
    stand.revive("rank_items")
    stand.expect_whole_soon()


@HOPS
def test_strict_callers_hear_of_it(stand, function, hop):
    """Who prefers strict handling gets 503 or 504 within the budget."""
    stand.kill(function)
    answer, took_s = stand.ask(prefer="handling=strict")
    assert answer.status_code in {503, 504}
    assert answer.headers["content-type"] == "application/problem+json"
    assert took_s <= BUDGET_S + GRACE_S


def test_a_caller_who_leaves_takes_the_work_along(stand):
    """When the caller disconnects, the call to the hop is cancelled too."""
    stand.kill("rank_items")
    begun, ended = threading.Event(), threading.Event()

    def watch(connection: socket.socket) -> None:
        connection.recv(65536)
        begun.set()
        if connection.recv(65536) == b"":
            ended.set()

    with listening(stand.hops["rank_items"].port, watch):
        with socket.create_connection(("127.0.0.1", stand.recommend.port)) as caller:
            body = b'{"user_id":"user_1"}'
            caller.sendall(
                b"POST / HTTP/1.1\r\nhost: x\r\nx-request-timeout-ms: 9000\r\ncontent-length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            assert begun.wait(5)
            assert not ended.is_set()
        assert ended.wait(1)


def test_an_upload_that_stalls_holds_nobody_up(stand):
    """Nobody's batch waits for it, it is told when its budget is spent, and a drain does not wait for it either."""
    ranking = stand.hops["rank_items"]
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nX-Request-Timeout-Ms: %d\r\n\r\n{"
    with (
        socket.create_connection(("127.0.0.1", ranking.port)) as long,
        socket.create_connection(("127.0.0.1", ranking.port)) as short,
    ):
        long.sendall(head % 2000)
        short.sendall(head % 200)
        time.sleep(0.1)
        assert 'cut;desc="slot_free"' in ranking.post(RANK).headers["server-timing"]
        answer = b"".join(iter(lambda: short.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 504")
        assert ranking.stop() == 0
        assert long.recv(65536).startswith(b"HTTP/1.1 504")
    assert "Traceback" not in ranking.log()
