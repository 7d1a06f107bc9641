"""
The channel between a running platform and the verbs: JSON lines over a Unix socket.

A request is `{"verb": NAME, ...}`, its answer `{"result": ...}` or `{"error": TEXT}`.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kubeyaml.errors import KubeyamlError
from localkn.errors import LocalknError, PlatformError, RefusedError

VerbHandler = Callable[[dict[str, Any]], Awaitable[Any]]
_LINE_LIMIT = 2**24
_TIMEOUT_S = 60.0


@contextlib.asynccontextmanager
async def serving(path: Path, handlers: Mapping[str, VerbHandler]) -> AsyncIterator[None]:
    """Answer requests on *path* while the block runs."""

    async def answer(line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            return {"result": await handlers[request["verb"]](request)}
        except (LocalknError, KubeyamlError) as error:
            return {"error": str(error)}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            # The program that asks may be older or newer than the platform.
            return {"error": f"the platform does not understand the request: {error!r}"}

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            while True:
                try:
                    line = await reader.readline()
                except ValueError:
                    told = {"error": f"a request may have {_LINE_LIMIT} bytes"}
                    writer.write(json.dumps(told).encode() + b"\n")
                    return await writer.drain()
                if not line:
                    return None
                writer.write(json.dumps(await answer(line)).encode() + b"\n")
                await writer.drain()

    server = await asyncio.start_unix_server(talk, path, limit=_LINE_LIMIT)
    try:
        yield
    finally:
        server.close()


class KeptConnection:
    """
    A connection to the platform for a caller that asks every second. It takes a third of the CPU of `call`.

    One call at a time may use it. After an error, the next call connects again.

    Args:
        path: The control socket.
        timeout_s: The longest wait for an answer.
    """

    def __init__(self, path: Path, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._path, self._timeout_s = path, timeout_s
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, verb: str, **arguments: Any) -> Any:
        """
        Ask the platform.

        Raises:
            PlatformError: No platform runs there, or it does not answer in time.
            RefusedError: The platform declined.
        """
        try:
            with _told(self._path, self._timeout_s):
                async with asyncio.timeout(self._timeout_s):
                    line = await self._exchange(_request(verb, arguments))
        except BaseException:
            # A late answer must not become the answer to the next call.
            self.close()
            raise
        return _result(line)

    def close(self) -> None:
        """End the connection."""
        if self._streams:
            self._streams[1].close()
        self._streams = None

    async def _exchange(self, line: bytes) -> bytes:
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(self._path, limit=_LINE_LIMIT)
        reader, writer = self._streams
        writer.write(line)
        answer = await reader.readline()
        if not answer.endswith(b"\n"):
            raise ConnectionResetError("the platform has closed the connection")
        return answer


def call(path: Path, verb: str, *, timeout_s: float = _TIMEOUT_S, **arguments: Any) -> Any:
    """
    Ask the platform whose control socket is *path*.

    Raises:
        PlatformError: No platform runs there, or it does not answer within *timeout_s*.
        RefusedError: The platform declined.
    """
    with _told(path, timeout_s), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(path))
        connection.sendall(_request(verb, arguments))
        with connection.makefile("rb") as answers:
            line = answers.readline()
    # A platform that ends leaves no answer, or the beginning of one.
    return _result(line if line.endswith(b"\n") else b'{"error": "the platform has just stopped"}')


def _request(verb: str, arguments: Mapping[str, Any]) -> bytes:
    return json.dumps({"verb": verb, **arguments}).encode() + b"\n"


def _result(line: bytes) -> Any:
    answer = json.loads(line)
    if "error" in answer:
        raise RefusedError(answer["error"])
    return answer["result"]


@contextlib.contextmanager
def _told(path: Path, timeout_s: float) -> Iterator[None]:
    """Raise the errors of the socket *path* as `PlatformError`."""
    try:
        yield
    except TimeoutError as error:
        raise PlatformError(f"the platform in {path.parent} does not answer within {timeout_s:.0f} s") from error
    except OSError as error:
        raise PlatformError(f"nothing is running in {path.parent}; `up` starts it") from error
