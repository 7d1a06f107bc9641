"""Fixtures of the tests of localkn."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.localkn.running import Running


@pytest.fixture
def anyio_backend() -> str:
    """The platform is written for asyncio."""
    return "asyncio"


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Running]:
    """A platform that is not up yet; whatever the test leaves running is ended."""
    running = Running(tmp_path)
    yield running
    running.run("down")
    left = running.processes()
    for process in left:
        process.send_signal(signal.SIGKILL)
    assert not left, [process.cmdline() for process in left]
