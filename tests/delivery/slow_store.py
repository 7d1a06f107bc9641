"""An object store that answers the pointer whole, and sends the files of the model so slowly that no download ends."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from tests.http_server import HttpHandler, HttpServer

_FILES = dict.fromkeys(("manifest.json", "arrays.safetensors", "items.json"), "0" * 64)
_POINTER = msgspec.json.encode({"version": "0123456789ab", "files": _FILES})
_BYTES_APART_S = 0.02


@dataclass(frozen=True)
class SlowStore:
    """
    A running store.

    Attributes:
        port: Its port.
        downloading: Set once a client gets a file.
    """

    port: int
    downloading: threading.Event = field(default_factory=threading.Event)

    @property
    def env(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
        }


@contextmanager
def slow_store() -> Iterator[SlowStore]:
    """Serve until the block ends."""
    ended = threading.Event()

    class Handler(HttpHandler):
        def get(self) -> None:
            pointed = self.path.endswith("current.json")
            self.send_response(200)
            self.send_header("Content-Length", str(len(_POINTER) if pointed else 10**9))
            self.send_header("ETag", '"1"')
            self.send_header("Last-Modified", "Sun, 29 Nov 2026 00:00:00 GMT")
            self.end_headers()
            if pointed:
                self.wfile.write(_POINTER)
                return
            store.downloading.set()
            try:
                while not ended.wait(_BYTES_APART_S):
                    self.wfile.write(b"x")
            except OSError:
                return

    with HttpServer(Handler) as server:
        store = SlowStore(server.server_port)
        try:
            yield store
        finally:
            ended.set()
