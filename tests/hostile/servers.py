"""Each kind of HTTP server in the project, started as a real process, with what a test needs to attack it."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec
import psutil

from kubeyaml.eventing import Routing, Trigger
from localkn.processes import free_port
from tests.running import ROOT, shell_command
from tests.waiting import LIMIT_S, eventually


@dataclass(frozen=True)
class Server:
    """
    A server process.

    Attributes:
        kind: Its name in the figures.
        port: Its port on the loopback.
        probe: A path that answers 200 to GET.
        process: The process.
        errors: Its standard error.
    """

    kind: str
    port: int
    probe: str
    process: psutil.Process
    errors: IO[str]

    def log(self) -> str:
        """Return what the process has logged."""
        self.errors.seek(0)
        return self.errors.read()

    def connect(self, *, receive_bytes: int = 0) -> socket.socket:
        """Return a new connection with a limit of time; *receive_bytes* sets the size of its receive buffer."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT_S)
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        return connection

    def get(self, *headers: str) -> bytes:
        """Return the bytes of a whole GET request for the probe."""
        lines = [f"GET {self.probe} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *headers]
        return "\r\n".join([*lines, "", ""]).encode()

    def ask(self, request: bytes) -> bytes:
        """Send *request* on a new connection and return everything that comes back until the server closes it."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_to_end(connection)

    def is_serving(self) -> bool:
        """Tell whether a new caller is answered."""
        return self.ask(self.get("Connection: close")).startswith(b"HTTP/1.1 200")

    def peak_mb(self, attack: Callable[[], None]) -> float:
        """Return by how many MB the peak of the process' resident memory exceeds the memory before *attack*."""
        before = self.process.memory_info().rss
        # Resets the peak to the current size. Source: proc(5), clear_refs.
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        attack()
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        peak_kb = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
        return max(0.0, (peak_kb * 1024 - before) / 1e6)


def read_to_end(connection: socket.socket) -> bytes:
    """Return everything that *connection* brings until it is closed."""
    received = b""
    try:
        while data := connection.recv(65_536):
            received += data
    except ConnectionResetError:
        # A server that refuses closes while it is still sent to: the kernel then sends a reset.
        pass
    return received


def _function(_folder: Path, metrics_port: int) -> tuple[Sequence[str], Mapping[str, str]]:
    env = {"AUTH": "off", "FEATURE_STORE_URL": "memory:", "METRICS_PORT": str(metrics_port)}
    return shell_command("extract_features"), env


def _broker(folder: Path, _metrics_port: int) -> tuple[Sequence[str], Mapping[str, str]]:
    env = {
        "ROUTING": msgspec.json.encode(
            Routing(("ns/b",), [Trigger("ns/t", "ns/b", f"http://127.0.0.1:{free_port()}")])
        ).decode(),
        "QUEUE": str(folder / "q.db"),
        "CONTROL": str(folder / "b.sock"),
    }
    return [sys.executable, "-m", "knbroker"], env


KINDS = {"function": "/livez", "metrics": "/metrics", "broker": "/healthz", "dashboard": "/_dashboard"}


@contextmanager
def serving(kind: str, *, descriptors: tuple[int, int] | None = None) -> Iterator[Server]:
    """Start a server of *kind*, whose limits of descriptors (soft, hard) may be given, and end it."""
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile("w+") as errors:
        folder, port = Path(name), free_port()
        inherited: tuple[int, ...] = ()
        env: Mapping[str, str] = {}
        if kind == "dashboard":
            listener = socket.create_server(("127.0.0.1", port))
            command: Sequence[str] = [
                sys.executable, "-m", "kndashboard", "--state-dir", name, "--fd", str(listener.fileno())
            ]  # fmt: skip
            inherited = (listener.fileno(),)
        elif kind == "metrics":
            command, env = _function(folder, port)
            env = {**env, "PORT": str(free_port())}
        else:
            command, env = (_function if kind == "function" else _broker)(folder, 0)
            env = {**env, "PORT": str(port)}
        popen = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **env},
            stderr=errors,
            pass_fds=inherited,
            preexec_fn=None if descriptors is None else lambda: _limit(descriptors),  # noqa: PLW1509 - no threads yet
        )
        if kind == "dashboard":
            listener.close()
        try:
            server = Server(kind, port, KINDS[kind], psutil.Process(popen.pid), errors)
            _wait(server, popen)
            yield server
        finally:
            popen.send_signal(signal.SIGTERM)
            try:
                popen.wait(timeout=LIMIT_S)
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()


def _limit(descriptors: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, descriptors)


def _wait(server: Server, popen: "subprocess.Popen[bytes]") -> None:
    def serving() -> bool:
        if popen.poll() is not None:
            raise AssertionError(f"{server.kind} ended with {popen.returncode}: {server.log()}")
        with contextlib.suppress(ConnectionRefusedError):
            return server.is_serving()
        return False

    eventually(serving)
