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

        def hang_up() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises((PlatformError, RefusedError)):
            control.call(place, "status")
        thread.join()
