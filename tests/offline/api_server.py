"""A fake of the Kubernetes API that publishing a model uses."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from offline.publication import ClusterAccess

PATH = "/api/v1/namespaces/default/configmaps"


class ApiServer(ThreadingHTTPServer):
    """
    A server that stores ConfigMaps and has one Knative Service.

    Attributes:
        maps: The stored ConfigMaps.
        tokens: The tokens of all requests that wrote.
        refuses: Whether every new ConfigMap is refused.
        service: The Service.
        conflicts: The number of updates of the Service that meet a conflict.
    """

    def __init__(self, service: dict[str, Any] | None = None, *, conflicts: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.maps: dict[str, dict[str, Any]] = {}
        self.tokens: set[str | None] = set()
        self.refuses = False
        self.service, self.conflicts = service or {}, conflicts

    @property
    def cluster(self) -> ClusterAccess:
        return ClusterAccess(f"127.0.0.1:{self.server_port}", "default", "token", None)


class Answering(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        known = self.path.endswith(f"/services/{self.server.service['metadata']['name']}")
        self._answer(200, self.server.service) if known else self._answer(404)

    def do_POST(self) -> None:
        body = self._body()
        name = body["metadata"]["name"]
        status = 403 if self.server.refuses else 409 if name in self.server.maps else 201
        if status == 201:
            self.server.maps[name] = body
        self._answer(status)

    def do_PUT(self) -> None:
        body = self._body()
        if self.path.startswith(PATH):
            self.server.maps[self.path.removeprefix(f"{PATH}/")] = body
        elif self.server.conflicts:
            self.server.conflicts -= 1
            self._answer(409)
            return
        else:
            self.server.service = body
        self._answer(200)

    def _body(self) -> Any:
        self.server.tokens.add(self.headers["Authorization"])
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, status: int, body: Any = None) -> None:
        content = json.dumps(body or {"kind": "Status", "message": "said by the server"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def api_server(service: dict[str, Any] | None = None, *, conflicts: int = 0) -> Iterator[ApiServer]:
    """Run an `ApiServer` in a thread."""
    with ApiServer(service, conflicts=conflicts) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
