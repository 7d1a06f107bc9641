"""
Accept undeliverable events and write each to standard output as one JSON line.

A line holds the event's attributes and data, so that the event can be sent again. Knative's attributes
`knativeerrordest`, `knativeerrorcode` and `knativeerrordata` name the subscriber that refused it and the reason.
Uses the standard library only.
"""

import json
import os
import signal
import threading
from base64 import b64encode
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_BYTES = 1024 * 1024


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

    def do_GET(self) -> None:
        """Answer probes."""
        self._answer(200 if self.path in {"/livez", "/readyz"} else 404)

    def do_POST(self) -> None:
        """Write the event to standard output."""
        body = self._read()
        if body is None:
            self.close_connection = True
            self._answer(413)
            return
        print(as_line(self.headers.items(), body), flush=True)
        # The answer is empty, because a broker would treat a body as a reply.
        self._answer(202)

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

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


def main() -> None:
    """Serve until SIGTERM."""
    server = ThreadingHTTPServer((os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8080"))), Sink)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    server.server_close()


if __name__ == "__main__":
    main()
