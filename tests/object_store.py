"""An S3-compatible server on the loopback interface, whose buckets are folders and whose objects are files."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from localkn.processes import free_port
from tests.running import CLIENT, killed_at_the_end
from tests.waiting import eventually

_BUCKET = "models"
_KEYS = {"ACCESS_KEY": "test-key", "SECRET_KEY": "test-secret-of-sixteen"}


@dataclass(frozen=True)
class ObjectStore:
    """
    A server and the variables that its clients need.

    Attributes:
        folder: Folder of the buckets.
        port: Its port.
    """

    folder: Path
    port: int

    @property
    def env(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": _KEYS["ACCESS_KEY"],
            "AWS_SECRET_ACCESS_KEY": _KEYS["SECRET_KEY"],
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
        }

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve until the block ends."""
        command = [sys.executable, "-m", "nanio", "serve", "--data-dir", str(self.folder), "--host", "127.0.0.1"]
        process = subprocess.Popen(
            [*command, "--port", str(self.port), "--log-level", "error", "--no-access-log"],
            env={**os.environ, **{f"NANIO_{name}": value for name, value in _KEYS.items()}},
        )
        with killed_at_the_end(process):
            eventually(self._answers)
            yield

    def _answers(self) -> bool:
        try:
            return CLIENT.get(f"http://127.0.0.1:{self.port}/").status_code == 403
        except httpx.TransportError:
            return False


@pytest.fixture(scope="session")
def object_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """Return a server with the bucket `models`."""
    store = ObjectStore(tmp_path_factory.mktemp("buckets"), free_port())
    (store.folder / _BUCKET).mkdir()
    with store.serving():
        yield store


@pytest.fixture
def object_store(object_server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """Return the server, and let clients in this process use it."""
    for name, value in object_server.env.items():
        monkeypatch.setenv(name, value)
    return object_server
