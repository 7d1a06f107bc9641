"""Fixtures of localkn's tests."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from localkn.__main__ import main
from tests.localkn.running import Running


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, for which the platform is written."""
    return "asyncio"


@contextmanager
def _platform(directory: Path) -> Iterator[Running]:
    """Yield a platform that is not started yet; kill every process that outlives `down`, and fail if there was one."""
    running = Running(directory)
    yield running
    main(["down", "--state-dir", str(running.state.root)])
    left = running.processes()
    for process in left:
        process.send_signal(signal.SIGKILL)
    assert not left, [process.cmdline() for process in left]


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Running]:
    """Yield a platform for one test."""
    with _platform(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def module_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Yield a platform, not started yet, for all tests of a module that leave it unchanged."""
    with _platform(tmp_path_factory.mktemp("steady")) as running:
        yield running
