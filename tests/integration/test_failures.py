"""Failures of real processes: the caller still gets an answer, and the pipeline recovers."""

import contextlib
import os
import signal
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from localkn.processes import free_port
from tests.demo import DemoState
from tests.running import Running, running
from tests.waiting import eventually

pytestmark = pytest.mark.may_block

FEATURES = {"age_group": "25-34", "avg_session_duration": 1.0, "total_purchases": 1, "engagement_score": 0.5}
RANK = {"features": FEATURES, "history": ["item_1"], "top_k": 3}
# On a busy machine a sound hop needs a second at times. Only hops that never answer use the whole budget.
BUDGET_MS = 4000


class BreakablePipeline:
    """A pipeline whose hops can be replaced by something broken on the same port."""

    def __init__(self, state: DemoState, folder: Path, stack: ExitStack) -> None:
        self._stack = stack
        self._client = stack.enter_context(httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0)))
        # Tests lock the store and take the model away. Other workers use the demo at that time.
        state.copy_to(folder)
        self.store = folder / Path(state.store_url.removeprefix("sqlite:///")).relative_to(state.folder)
        self.env = {
            "extract_features": {"FEATURE_STORE_URL": f"sqlite:///{self.store}"},
            "rank_items": {"MODEL_PATH": str(folder / state.model_path.relative_to(state.folder))},
        }
        self.hops = {name: self._start(name, free_port()) for name in self.env}
        self.env["recommend"] = {
            "EXTRACT_FEATURES_URL": self.hops["extract_features"].url,
            "RANK_ITEMS_URL": self.hops["rank_items"].url,
            "POPULAR_LIST_PATH": str(folder / "popular.json"),
        }
        self.recommend = self._start("recommend", free_port())

    def _start(self, name: str, port: int) -> Running:
        return self._stack.enter_context(running(name, self.env[name], port=port))

    def restart(self, name: str) -> None:
        self.hops[name] = self._start(name, self.hops[name].port)

    def restart_recommend(self) -> None:
        self.recommend.stop(signal.SIGKILL)
        self.recommend = self._start("recommend", self.recommend.port)

    def kill(self, name: str) -> None:
        self.hops[name].stop(signal.SIGKILL)

    def repair(self) -> None:
        for name, hop in self.hops.items():
            if hop.process.poll() is not None:
                self.restart(name)
        self.expect_recovery()

    def ask(self, **headers: str) -> httpx.Response:
        return self._client.post(
            self.recommend.url,
            json={"user_id": "user_42"},
            headers={"x-request-timeout-ms": str(BUDGET_MS), **headers},
        )

    def expect_degraded(self, *hops: str, times: int = 12) -> None:
        """Expect in every answer a list of items and the names of the failed hops."""
        for _ in range(times):
            answer = self.ask()
            assert answer.status_code == 200, answer.text
            assert answer.json().get("degraded", []) == list(hops)
            assert len(answer.json()["recommendations"]) == 5

    def expect_recovery(self) -> None:
        def is_complete() -> bool:
            answer = self.ask()
            assert answer.status_code == 200
            return "degraded" not in answer.json()

        eventually(is_complete)


@pytest.fixture(scope="module")
def shared_pipeline(demo_state: DemoState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BreakablePipeline]:
    with ExitStack() as stack:
        yield BreakablePipeline(demo_state, tmp_path_factory.mktemp("pipeline"), stack)


@pytest.fixture
def pipeline(shared_pipeline: BreakablePipeline) -> Iterator[BreakablePipeline]:
    """Yield the pipeline, and expect that it recovers after the test."""
    yield shared_pipeline
    shared_pipeline.repair()


@contextmanager
def listening(port: int, talk: Callable[[socket.socket], None]) -> Iterator[None]:
    """Listen on *port* in place of a function and handle each connection with *talk*."""
    listener = socket.create_server(("127.0.0.1", port))
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
            connection.settimeout(60)
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


def send_non_http(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"\x00\x01 certainly not HTTP\r\n\r\n")


def send_wrong_body(connection: socket.socket) -> None:
    while connection.recv(65536):
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n<html></html>")


def send_errors(connection: socket.socket) -> None:
    while connection.recv(65536):
        connection.sendall(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n")


def hang_up(connection: socket.socket) -> None:
    connection.recv(65536)


HOPS = pytest.mark.parametrize(("function", "hop"), [("extract_features", "features"), ("rank_items", "ranking")])


@HOPS
def test_a_killed_function_degrades_the_answers(pipeline, function, hop):
    """Answers are degraded while a function is dead, and complete after its restart."""
    pipeline.kill(function)
    pipeline.expect_degraded(hop)
    pipeline.restart(function)
    pipeline.expect_recovery()


@HOPS
def test_a_hung_function_degrades_the_answers(pipeline, function, hop):
    """A function that never answers degrades the answers, which come within the caller's budget."""
    os.kill(pipeline.hops[function].process.pid, signal.SIGSTOP)
    try:
        pipeline.expect_degraded(hop, times=2)
    finally:
        os.kill(pipeline.hops[function].process.pid, signal.SIGCONT)
    pipeline.expect_recovery()


@HOPS
@pytest.mark.parametrize("talk", [send_non_http, send_wrong_body, send_errors, hang_up])
def test_invalid_answers_degrade_the_answers(pipeline, function, hop, talk):
    """Bytes that are not HTTP, invalid bodies, errors and closed connections all count as a failed hop."""
    pipeline.kill(function)
    with listening(pipeline.hops[function].port, talk):
        pipeline.expect_degraded(hop)


@HOPS
def test_a_slow_function_degrades_the_answers(pipeline, function, hop):
    """A hop whose answer is not complete within its share of the budget times out, and the answer is degraded."""
    pipeline.kill(function)
    ended = threading.Event()

    def slow(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{")
        ended.wait(60)

    with listening(pipeline.hops[function].port, slow):
        pipeline.expect_degraded(hop, times=2)
        ended.set()


def test_the_popular_list_replaces_both_hops(pipeline):
    """Without both hops the saved popular list is the answer, also from a recommend that has just started."""
    for function in pipeline.hops:
        pipeline.kill(function)
    pipeline.expect_degraded("features", "ranking")
    pipeline.restart_recommend()
    pipeline.expect_degraded("features", "ranking")


def test_a_locked_store_degrades_the_answers(pipeline):
    """While another process locks the store, ranking continues without features."""
    holder = sqlite3.connect(pipeline.store, isolation_level=None)
    pipeline.hops["extract_features"].stop(signal.SIGKILL)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    pipeline.expect_degraded("features")
    holder.execute("COMMIT")
    holder.close()


def test_a_missing_artefact_degrades_the_answers(pipeline, tmp_path):
    """A ranker without its artefact does not become ready, and the answers come from the popular list."""
    model = Path(pipeline.env["rank_items"]["MODEL_PATH"])
    pipeline.kill("rank_items")
    elsewhere = model.with_name("elsewhere")
    model.rename(elsewhere)
    try:
        with pytest.raises(AssertionError, match="no model at"):
            pipeline.restart("rank_items")
        pipeline.expect_degraded("ranking")
    finally:
        elsewhere.rename(model)


def test_a_disconnect_cancels_the_call_to_the_hop(pipeline):
    """When the caller disconnects, recommend closes its connection to the hop."""
    pipeline.kill("rank_items")
    begun, ended = threading.Event(), threading.Event()

    def watch(connection: socket.socket) -> None:
        connection.recv(65536)
        begun.set()
        if connection.recv(65536) == b"":
            ended.set()

    with listening(pipeline.hops["rank_items"].port, watch):
        with socket.create_connection(("127.0.0.1", pipeline.recommend.port)) as caller:
            body = b'{"user_id":"user_1"}'
            caller.sendall(
                b"POST / HTTP/1.1\r\nhost: x\r\nx-request-timeout-ms: 9000\r\ncontent-length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            assert begun.wait(60)
            assert not ended.is_set()
        assert ended.wait(60)


def test_a_stalled_upload_delays_no_other_request(pipeline):
    """Neither a batch nor a drain waits for the upload, which gets 504 when its budget is spent."""
    ranking = pipeline.hops["rank_items"]
    head = (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nExpect: 100-continue\r\nX-Request-Timeout-Ms: %d\r\n\r\n"
    )
    with (
        socket.create_connection(("127.0.0.1", ranking.port)) as long,
        socket.create_connection(("127.0.0.1", ranking.port)) as short,
    ):
        for upload, budget_ms in ((long, 2000), (short, 200)):
            upload.sendall(head % budget_ms)
            assert upload.recv(65536).startswith(b"HTTP/1.1 100")
            upload.sendall(b"{")
        assert 'cut;desc="slot_free"' in ranking.post(RANK).headers["server-timing"]
        answer = b"".join(iter(lambda: short.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 504")
        assert ranking.stop() == 0
        assert long.recv(65536).startswith(b"HTTP/1.1 504")
    assert "Traceback" not in ranking.log()
