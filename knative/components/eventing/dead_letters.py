"""
Keep undeliverable events in Redis.

    POST /                  an event, in binary or structured mode
    POST /erased            an event about the erasure of a user: removes the user's letters
    GET /letters?after=ID   the letters after ID, oldest first, at most 100: {"letters": [{"id": …, "letter": …}]}
    DELETE /letters/ID      remove a letter, after it was sent again

A letter holds the event's attributes and data, so that it can be sent again. Knative's attributes `knativeerrordest`,
`knativeerrorcode` and `knativeerrordata` name the subscriber that refused it and the reason.

Letters about an erased user are not kept. The feature store in the same Redis knows these users.

DEAD_LETTERS_URL names the Redis. Standard output gets a JSON line for each letter: its attributes without the user, or
the whole letter if no Redis keeps it. Uses the standard library and redis-py.
"""

import hashlib
import json
import os
import re
import secrets
import signal
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from redis import Redis, RedisError

MAX_BYTES = 1024 * 1024
MAX_LINE = 8192
MAX_DEPTH = 100
MAX_LETTERS = 100_000
PAGE = 100
# Not among the keys recsys:*, which belong to the feature store.
KEY = "recsys-letters"
ID = re.compile(r"\d{19}-\d{6}", re.ASCII)
_TIMEOUT_S = 5.0
# The key of the erasure of a user, by the SHA-256 of the user's id; the feature store writes it.
_ERASURE = "recsys:erased:{{{}}}"
_ASCII = "".join(map(chr, range(32, 127)))
_LOGGED = ("type", "source", "id", "knativeerrordest", "knativeerrorcode")


class NotErasedError(Exception):
    """The feature store does not know of the erasure yet."""


class Letters:
    """
    The letters, in a sorted set of Redis: each member is an id and a letter, in the order of the ids.

    A stream would keep the bytes of removed letters, in its memory and in the files of Redis.

    Args:
        redis: The client; None keeps no letters.
    """

    def __init__(self, redis: Redis | None) -> None:
        self._redis = redis

    @property
    def kept(self) -> bool:
        """Whether letters are kept."""
        return self._redis is not None

    def add(self, letter: str) -> bool:
        """
        Keep *letter*, unless it is about an erased user; return whether it is kept.

        Raises:
            RedisError: the letter could not be kept, or there are MAX_LETTERS letters.
        """
        if self._redis is None:
            return False
        if self._redis.zcard(KEY) >= MAX_LETTERS:
            raise RedisError(f"{MAX_LETTERS} letters are kept; send or remove some")
        member = f"{time.time_ns():019d}-{secrets.randbelow(10**6):06d} {letter}"
        self._redis.zadd(KEY, {member: 0})
        # An erasure that is noted after this look removes the letter itself.
        if any(map(self._is_erased, users_of(json.loads(letter)))):
            self._redis.zrem(KEY, member)
            return False
        return True

    def page(self, after: str) -> list[dict[str, object]]:
        """Return letters after the id *after*, oldest first; "" begins at the first. Only the last page is empty."""
        while self._redis:
            # The types of redis-py do not tell strings from bytes.
            found: Any = self._redis.zrangebylex(KEY, f"({after}!" if after else "-", "+", 0, PAGE)
            split = [member.partition(" ") for member in found]
            letters = [(id_, _read_letter(text)) for id_, _, text in split if ID.fullmatch(id_)]
            page = [{"id": id_, "letter": letter} for id_, letter in letters if letter]
            if page or not found:
                return page
            after = split[-1][0]
        return []

    def remove(self, id_: str) -> bool:
        """Remove a letter; return whether it existed."""
        return bool(self._redis and self._redis.zremrangebylex(KEY, f"[{id_} ", f"({id_}!"))

    def erase(self, user: str) -> None:
        """
        Remove the letters about a user who is erased in the feature store.

        Raises:
            NotErasedError: the feature store knows no erasure of the user.
        """
        if self._redis is None:
            return
        if not self._redis.exists(_erasure(user)):
            raise NotErasedError
        if self._is_erased(user):
            members: Any = self._redis.zscan_iter(KEY)
            for member, _ in members:
                letter = _read_letter(member.partition(" ")[2])
                if letter and user in users_of(letter):
                    self._redis.zrem(KEY, member)

    def _is_erased(self, user: str) -> bool:
        noted: Any = self._redis.hmget(_erasure(user), "at_us", "readmitted") if self._redis else [None]
        return noted[0] is not None and noted[1] != "1"


def _erasure(user: str) -> str:
    return _ERASURE.format(hashlib.sha256(user.encode()).hexdigest())


def _read_letter(text: str) -> Any:
    """Return the letter in *text*; None if another program wrote other text to the key."""
    try:
        letter = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return letter if isinstance(letter, dict) and isinstance(letter.get("attributes"), dict) else None


def users_of(letter: Any) -> set[str]:
    """
    Return the users that *letter* may be about.

    They are its subject, and each `user_id` of its data, or of an object of a list in the data. A `user_id` may be a list.
    """
    subject: Any = unquote(letter["attributes"].get("subject", ""))
    data = letter.get("data")
    if isinstance(data, dict) and "specversion" in data:  # an event in structured mode
        subject, data = data.get("subject"), data.get("data")
    members = data if isinstance(data, dict) else {}
    listed = [each for value in members.values() if isinstance(value, list) for each in value]
    named = [each.get("user_id") for each in [members, *listed] if isinstance(each, dict)]
    values = [value for each in named for value in (each if isinstance(each, list) else [each])]
    return {each for each in [subject, *values] if isinstance(each, str) and each}


def as_line(headers: Iterable[tuple[str, str]], body: bytes) -> str:
    """
    Return an event, in binary or structured mode, as one line of JSON.

    Attributes stay percent-encoded. The brokers of Knative send UTF-8 instead, which http.server reads as Latin-1.
    """
    named = {name.lower(): quote(value, safe=_ASCII, encoding="latin-1") for name, value in headers}
    attributes = {name.removeprefix("ce-"): value for name, value in named.items() if name.startswith("ce-")}
    attributes["datacontenttype"] = named.get("content-type", "")
    letter: dict[str, object] = {"event": "dead_letter", "attributes": attributes}
    try:
        letter["data"] = _read_data(body) if body else None
    except (ValueError, RecursionError):
        letter["data_base64"] = b64encode(body).decode()
    return json.dumps(letter, separators=(",", ":"), sort_keys=True)


def _read_data(body: bytes) -> Any:
    """
    Return JSON data of at most MAX_DEPTH levels.

    Raises:
        ValueError, RecursionError: it is malformed, or has more levels. The json module writes fewer than it reads.
    """
    data = json.loads(body)
    level = [data]
    for _ in range(MAX_DEPTH):
        nested = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [value for each in nested for value in each]
        if not level:
            return data
    raise ValueError(f"more than {MAX_DEPTH} levels")


def as_log(letter: str) -> str:
    """Return *letter* for the log: its attributes without those that may name a user."""
    attributes = json.loads(letter)["attributes"]
    return json.dumps({"event": "dead_letter", **{name: attributes[name] for name in _LOGGED if name in attributes}})


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
        """Keep the event, or remove the letters of an erased user."""
        try:
            body = self._read()
        except ValueError:
            self.close_connection = True
            self._answer(HTTPStatus.BAD_REQUEST)
            return
        if body is None:
            self.close_connection = True
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        letter = as_line(self.headers.items(), body)
        try:
            if self.path == "/erased":
                for user in users_of(json.loads(letter)):
                    self.letters.erase(user)
            elif self.letters.add(letter):
                print(as_log(letter), flush=True)
            elif not self.letters.kept:
                print(letter, flush=True)
        except NotErasedError:
            # The broker delivers the event again, and extract_features has it by then.
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        except RedisError as error:
            # The broker delivers the event again, but only a few times.
            print(letter, flush=True)
            print(f"cannot keep a letter: {error}", file=sys.stderr, flush=True)
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        # The answer is empty, because a broker would treat a body as a reply.
        self._answer(HTTPStatus.ACCEPTED)

    def log_message(self, *_: object) -> None:
        """Log no requests, because the output holds only dead letters."""

    def _read(self) -> bytes | None:
        """
        Return the body, sent with a length or in chunks; None if it exceeds the limit.

        Raises:
            ValueError: the length of the body, or of a chunk, is not a number.
        """
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            length = _length(self.headers.get("content-length") or "0", 10)
            return self.rfile.read(length) if length <= MAX_BYTES else None
        body = b""
        while size := _length(self.rfile.readline(MAX_LINE).partition(b";")[0].decode("latin-1").strip(), 16):
            if len(body) + size > MAX_BYTES:
                return None
            body += self.rfile.read(size)
            self.rfile.readline(MAX_LINE)
        while self.rfile.readline(MAX_LINE).strip():
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


def _length(digits: str, base: int) -> int:
    # int() also takes signs and underscores, and a negative length would read until the sender closes.
    if not digits.isascii() or not digits.isalnum():
        raise ValueError(digits)
    return int(digits, base)


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
