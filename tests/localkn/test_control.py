"""The control socket between a platform and its verbs."""

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from localkn import control
from localkn.errors import PlatformError, RefusedError

pytestmark = pytest.mark.anyio


async def test_results_and_refusals_are_returned(tmp_path: Path) -> None:
    """A call returns the result of its handler, or raises the handler's refusal."""

    async def echo(request: dict[str, Any]) -> Any:
        if request.get("word") is None:
            raise RefusedError("nothing to say")
        return [request["word"]]

    place = tmp_path / "c.sock"
    async with control.serving(place, {"echo": echo}):
        assert await asyncio.to_thread(control.call, place, "echo", word="ü" * 100_000) == ["ü" * 100_000]
        with pytest.raises(RefusedError, match="nothing to say"):
            await asyncio.to_thread(control.call, place, "echo")


def test_a_call_without_a_platform_is_an_error(tmp_path: Path) -> None:
    """A missing socket, one without a listener, and one that closes the connection are errors."""
    place = tmp_path / "c.sock"
    with pytest.raises(PlatformError, match="nothing is running in"):
        control.call(place, "status")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        with pytest.raises(PlatformError, match="nothing is running in"):
            control.call(place, "status")
        server.listen()

        for said in (b"", b'{"result": ["cut'):

            def hang_up(said: bytes = said) -> None:
                connection = server.accept()[0]
                connection.recv(100)
                connection.sendall(said)
                connection.close()

            thread = threading.Thread(target=hang_up)
            thread.start()
            with pytest.raises(RefusedError, match="just stopped"):
                control.call(place, "status")
            thread.join()


async def test_a_kept_connection_carries_many_calls(tmp_path: Path) -> None:
    """All calls use a single connection; a refusal ends no call but its own."""
    connections: list[int] = []

    async def count(request: dict[str, Any]) -> int:
        if request.get("refuse"):
            raise RefusedError("not now")
        connections.append(len(connections))
        return len(connections)

    place = tmp_path / "c.sock"
    async with control.serving(place, {"count": count}):
        platform = control.KeptConnection(place)
        assert [await platform.call("count"), await platform.call("count")] == [1, 2]
        place.unlink()  # A new connection would fail from here on.
        with pytest.raises(RefusedError, match="not now"):
            await platform.call("count", refuse=True)
        assert await platform.call("count") == 3
        platform.close()
        with pytest.raises(PlatformError, match="nothing is running in"):
            await platform.call("count")


@pytest.mark.parametrize("said", [b"", b'{"result": ["cut'])
async def test_a_kept_connection_survives_a_restart_of_the_platform(tmp_path: Path, said: bytes) -> None:
    """A call fails that the platform does not answer to the end, and the next call reaches the new platform."""
    place = tmp_path / "c.sock"

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(said)
        writer.close()

    async def name(_: dict[str, Any]) -> str:
        return "new"

    platform = control.KeptConnection(place)
    former = await asyncio.start_unix_server(hang_up, place)
    with pytest.raises(PlatformError, match="nothing is running in"):
        await platform.call("name")
    former.close()
    place.unlink(missing_ok=True)
    async with control.serving(place, {"name": name}):
        assert await platform.call("name") == "new"
        platform.close()


async def test_a_late_answer_is_not_taken_for_the_next(tmp_path: Path) -> None:
    """After a call that was cancelled, the next call gets its own answer."""
    place, began, late = tmp_path / "c.sock", asyncio.Event(), asyncio.Event()

    async def slow(_: dict[str, Any]) -> str:
        began.set()
        await late.wait()
        return "late"

    async def fast(_: dict[str, Any]) -> str:
        return "fast"

    async with control.serving(place, {"slow": slow, "fast": fast}):
        platform = control.KeptConnection(place)
        abandoned = asyncio.create_task(platform.call("slow"))
        await began.wait()
        abandoned.cancel()
        await asyncio.wait([abandoned])
        late.set()
        assert await platform.call("fast") == "fast"
        platform.close()


async def test_a_kept_connection_times_out(tmp_path: Path) -> None:
    """A platform that does not answer in time is an error."""

    async def never(_: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    place = tmp_path / "c.sock"
    async with control.serving(place, {"never": never}):
        with pytest.raises(PlatformError, match="does not answer within"):
            await control.KeptConnection(place, timeout_s=0.01).call("never")
