"""Garbage collection of an instance: off while it starts, on while it serves."""

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from chassis.server.asgi import settle_memory
from tests.running import ROOT


@pytest.fixture
def _collecting() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()
    gc.enable()


@pytest.mark.usefixtures("_collecting")
def test_a_ready_instance_collects_garbage() -> None:
    """The objects of the start are never searched for garbage, and those of requests are."""
    gc.disable()
    settle_memory()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 10_000


@pytest.mark.may_block
def test_a_start_does_not_collect_garbage() -> None:
    """Imports are not interrupted by the collector."""
    code = "import gc, chassis.server.__main__; print(gc.isenabled())"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert ended.stdout.strip() == "False"
