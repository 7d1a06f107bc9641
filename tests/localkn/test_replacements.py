"""The platform starts the replacement of an ended instance immediately, not at its next tick."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

from localkn.platform import Platform


class Ended:
    """An instance whose process has ended."""

    name, stopping, exit_reason = "front-00001-1", False, "killed"

    async def run(self, *_: object) -> None:
        """Return, as after the end of the process."""


@pytest.mark.parametrize("delay_s", [0.0, 0.01])
async def test_the_end_of_an_instance_wakes_the_platform(delay_s: float) -> None:
    """The platform reconciles when the instance ends, and again when a replacement may start."""
    platform = Platform(
        *cast("tuple[Any, Any, Any, Any]", (None,) * 4), public="front", url="http://127.0.0.1:1", notes=(), direct=True
    )
    woken: list[float] = []
    loop = asyncio.get_running_loop()
    platform.changed = lambda: woken.append(loop.time())  # type: ignore[method-assign]
    revision = SimpleNamespace(ended=lambda *_: None, retry_at=loop.time() + delay_s)
    await platform._live(cast("Any", Ended()), cast("Any", None), cast("Any", revision))
    assert len(woken) == 1
    while len(woken) < 2:
        await asyncio.sleep(0)
    assert woken[1] >= revision.retry_at or not delay_s


@pytest.mark.parametrize("error", [BrokenPipeError, OSError])
async def test_a_notice_that_cannot_be_written_keeps_no_replacement_away(
    error: type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The platform notes the end of an instance also where its disk is full or its terminal is closed."""
    monkeypatch.setattr("sys.stderr", SimpleNamespace(write=Mock(side_effect=error), flush=Mock()))
    platform = Platform(
        *cast("tuple[Any, Any, Any, Any]", (None,) * 4), public="front", url="http://127.0.0.1:1", notes=(), direct=True
    )
    revision = SimpleNamespace(ended=Mock(), retry_at=0.0)
    await platform._live(cast("Any", Ended()), cast("Any", None), cast("Any", revision))
    revision.ended.assert_called_once()
