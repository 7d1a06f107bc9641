"""
The channel between a running platform and the verbs: JSON lines over a Unix socket.

A request is `{"verb": NAME, ...}`, its answer `{"result": ...}` or `{"error": TEXT}`.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from kubeyaml.errors import KubeyamlError
from localkn.errors import LocalknError, PlatformError, RefusedError

Handler = Callable[[dict[str, Any]], Awaitable[Any]]
_LINE_LIMIT = 2**24


@contextlib.asynccontextmanager
async def serving(path: Path, handlers: Mapping[str, Handler]) -> AsyncIterator[None]:
    """Answer requests on *path* while the block runs."""

    async def answer(line: bytes) -> dict[str, Any]:
        request = json.loads(line)
        try:
            return {"result": await handlers[request["verb"]](request)}
        except (LocalknError, KubeyamlError) as error:
            return {"error": str(error)}

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            while line := await reader.readline():
                writer.write(json.dumps(await answer(line)).encode() + b"\n")
                await writer.drain()

    server = await asyncio.start_unix_server(talk, path, limit=_LINE_LIMIT)
    try:
        yield
    finally:
        server.close()


def call(path: Path, verb: str, **arguments: Any) -> Any:
    """
    Ask the platform whose control socket is *path*.

    Raises:
        PlatformError: None runs there.
        RefusedError: It declined.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
            answer = json.loads(connection.makefile("rb").readline() or b'{"error": "it stopped meanwhile"}')
    except (FileNotFoundError, ConnectionError) as error:
        raise PlatformError(f"nothing is running in {path.parent}; `up` starts it") from error
    if "error" in answer:
        raise RefusedError(answer["error"])
    return answer["result"]
