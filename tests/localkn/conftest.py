"""Fixtures of the tests of localkn."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.localkn.running import Running


@pytest.fixture
def anyio_backend() -> str:
    """The platform is written for asyncio."""
    return "asyncio"


@contextmanager
def _ended(directory: Path) -> Iterator[Running]:
    """A platform that is not up yet; whatever is left running after `down` is ended, and is a failure."""
    running = Running(directory)
    yield running
    running.run("down")
    left = running.processes()
    for process in left:
        process.send_signal(signal.SIGKILL)
    assert not left, [process.cmdline() for process in left]


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Running]:
    """A platform for one test."""
    with _ended(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A platform for all tests of a module that leave it as it was; not up yet."""
    with _ended(tmp_path_factory.mktemp("steady")) as running:
        yield running
