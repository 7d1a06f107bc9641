"""A fake of the Kubernetes API that publishing a model uses."""

import json
from typing import Any

from offline.publication import ClusterAccess
from tests.http_server import HttpHandler, HttpServer

PATH = "/api/v1/namespaces/default/configmaps"


class ApiServer(HttpServer):
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
        super().__init__(Answering)
        self.maps: dict[str, dict[str, Any]] = {}
        self.tokens: set[str | None] = set()
        self.refuses = False
        self.service, self.conflicts = service or {}, conflicts

    @property
    def cluster(self) -> ClusterAccess:
        return ClusterAccess(f"127.0.0.1:{self.server_port}", "default", "token", None)


class Answering(HttpHandler):
    server: ApiServer

    def get(self) -> None:
        known = self.path.endswith(f"/services/{self.server.service['metadata']['name']}")
        self._answer(200, self.server.service) if known else self._answer(404)

    def post(self) -> None:
        body = self._read()
        name = body["metadata"]["name"]
        status = 403 if self.server.refuses else 409 if name in self.server.maps else 201
        if status == 201:
            self.server.maps[name] = body
        self._answer(status)

    def put(self) -> None:
        body = self._read()
        if self.path.startswith(PATH):
            self.server.maps[self.path.removeprefix(f"{PATH}/")] = body
        elif self.server.conflicts:
            self.server.conflicts -= 1
            self._answer(409)
            return
        else:
            self.server.service = body
        self._answer(200)

    def _read(self) -> Any:
        self.server.tokens.add(self.headers["Authorization"])
        return json.loads(self.body())

    def _answer(self, status: int, body: Any = None) -> None:
        self.answer(status, json.dumps(body or {"kind": "Status", "message": "said by the server"}).encode())
