"""As much of an HTTP client as probes and Envoy's admin interface need."""

import asyncio
from collections.abc import Mapping


async def get(
    path: str, *, port: int | None = None, socket: str | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """
    GET *path* on a new connection to a loopback port or a Unix socket.

    Returns:
        Status and body.

    Raises:
        OSError: Nobody listens, or what answers is not HTTP. The caller sets the time limit.
    """
    if socket is None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    else:
        reader, writer = await asyncio.open_unix_connection(socket)
    try:
        fields = {"Host": "localhost", **(headers or {}), "Connection": "close"}
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    finally:
        writer.close()
    version, _, status = head.partition(b"\r\n")[0].partition(b" ")
    if not version.startswith(b"HTTP/1") or not status[:3].isdigit():
        raise ConnectionError("the answer is not HTTP")
    return int(status[:3]), _joined(body) if b"transfer-encoding: chunked" in head.lower() else body


def _joined(body: bytes) -> bytes:
    chunks = bytearray()
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        chunks += body[:length]
        body = body[length + 2 :]
    return bytes(chunks)
