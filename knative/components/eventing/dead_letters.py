"""
Keep undeliverable events in Redis, and write each to standard output as one JSON line.

    POST /                  an event, in binary or structured mode
    GET /letters?after=ID   the letters after ID, oldest first, at most 100: {"letters": [{"id": …, "letter": …}]}
    DELETE /letters/ID      remove a letter, after it was sent again

A letter holds the event's attributes and data, so that it can be sent again. Knative's attributes `knativeerrordest`,
`knativeerrorcode` and `knativeerrordata` name the subscriber that refused it and the reason.

DEAD_LETTERS_URL names the Redis; without it, letters are in the log only. Uses the standard library and redis-py.
"""

import json
import os
import re
import signal
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from redis import Redis, RedisError

MAX_BYTES = 1024 * 1024
MAX_LETTERS = 100_000
PAGE = 100
# Not among the keys recsys:*, which belong to the feature store.
KEY = "recsys-dead-letters"
ID = re.compile(r"\d{1,20}-\d{1,20}", re.ASCII)
_TIMEOUT_S = 5.0


class Letters:
    """
    The letters, in a stream of Redis.

    Args:
        redis: The client; None keeps no letters.
    """

    def __init__(self, redis: Redis | None) -> None:
        self._redis = redis

    @property
    def kept(self) -> bool:
        """Whether letters are kept."""
        return self._redis is not None

    def add(self, letter: str) -> None:
        """
        Keep *letter*.

        Raises:
            RedisError: the letter could not be kept, or there are MAX_LETTERS letters.
        """
        if self._redis is None:
            return
        if self._redis.xlen(KEY) >= MAX_LETTERS:
            raise RedisError(f"{MAX_LETTERS} letters are kept; send or remove some")
        self._redis.xadd(KEY, {"letter": letter})

    def page(self, after: str) -> list[dict[str, object]]:
        """Return the letters after the id *after*, oldest first; "" begins at the first."""
        # The types of redis-py say that a stream may hold None.
        found: Any = self._redis.xrange(KEY, min=f"({after}" if after else "-", count=PAGE) if self._redis else []
        return [{"id": id_, "letter": json.loads(fields["letter"])} for id_, fields in found]

    def remove(self, id_: str) -> bool:
        """Remove a letter; return whether it existed."""
        return bool(self._redis and self._redis.xdel(KEY, id_))


def as_line(headers: Iterable[tuple[str, str]], body: bytes) -> str:
    """Return an event, in binary or structured mode, as one line of JSON."""
    named = {name.lower(): value for name, value in headers}
    attributes = {name.removeprefix("ce-"): value for name, value in named.items() if name.startswith("ce-")}
    attributes["datacontenttype"] = named.get("content-type", "")
    letter: dict[str, object] = {"event": "dead_letter", "attributes": attributes}
    try:
        letter["data"] = json.loads(body) if body else None
    except ValueError:
        letter["data_base64"] = b64encode(body).decode()
    return json.dumps(letter, separators=(",", ":"), sort_keys=True)


class Sink(BaseHTTPRequestHandler):
    """Handler that accepts every event."""

    # HTTP/1.1 keeps connections open, until queue-proxy closes them.
    protocol_version = "HTTP/1.1"
    letters = Letters(None)

    def do_GET(self) -> None:
        """Answer probes, and list letters."""
        parts = urlsplit(self.path)
        if parts.path in {"/livez", "/readyz"}:
            self._answer(HTTPStatus.OK)
        elif parts.path == "/letters" and self.letters.kept:
            after = parse_qs(parts.query).get("after", [""])[0]
            if after and not ID.fullmatch(after):
                self._answer(HTTPStatus.BAD_REQUEST)
            else:
                self._with_redis(lambda: json.dumps({"letters": self.letters.page(after)}).encode())
        else:
            self._answer(HTTPStatus.NOT_FOUND)

    def do_DELETE(self) -> None:
        """Remove a letter."""
        folder, _, id_ = self.path.rpartition("/")
        if folder != "/letters" or not ID.fullmatch(id_) or not self.letters.kept:
            self._answer(HTTPStatus.NOT_FOUND)
        else:
            self._with_redis(lambda: b'{"removed":true}' if self.letters.remove(id_) else b'{"removed":false}')

    def do_POST(self) -> None:
        """Keep the event, and write it to standard output."""
        body = self._read()
        if body is None:
            self.close_connection = True
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        line = as_line(self.headers.items(), body)
        print(line, flush=True)
        try:
            self.letters.add(line)
        except RedisError as error:
            # The broker delivers the event again. The line above is in the log in any case.
            print(f"cannot keep a letter: {error}", file=sys.stderr, flush=True)
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        # The answer is empty, because a broker would treat a body as a reply.
        self._answer(HTTPStatus.ACCEPTED)

    def log_message(self, *_: object) -> None:
        """Log no requests, because the output holds only dead letters."""

    def _read(self) -> bytes | None:
        """Return the body, sent with a length or in chunks; None if it exceeds the limit."""
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            length = int(self.headers.get("content-length") or 0)
            return self.rfile.read(length) if length <= MAX_BYTES else None
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            if len(body) + size > MAX_BYTES:
                return None
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def _with_redis(self, read: Callable[[], bytes]) -> None:
        try:
            self._answer(HTTPStatus.OK, read())
        except RedisError as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, json.dumps({"detail": f"Redis: {error}"}).encode())

    def _answer(self, status: HTTPStatus, body: bytes = b"") -> None:
        self.send_response(status)
        if body:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def open_letters(url: str, password: str | None) -> Letters:
    """Return the letters in the Redis at *url*; "" keeps none."""
    if not url:
        return Letters(None)
    credentials = {"password": password} if password else {}
    timeouts = {"socket_timeout": _TIMEOUT_S, "socket_connect_timeout": _TIMEOUT_S}
    return Letters(Redis.from_url(url, decode_responses=True, **timeouts, **credentials))


def main() -> None:
    """Serve until SIGTERM."""
    Sink.letters = open_letters(os.environ.get("DEAD_LETTERS_URL", ""), os.environ.get("DEAD_LETTERS_PASSWORD"))
    server = ThreadingHTTPServer((os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8080"))), Sink)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    server.server_close()


if __name__ == "__main__":
    main()
