"""A test run leaves no processes behind."""

import signal
import subprocess
import sys

import pytest

from tests.leftovers import killed_leftovers
from tests.waiting import LIMIT_S


@pytest.mark.skipif(sys.platform != "linux", reason="the environment of a process is read from /proc")
def test_a_process_that_outlives_the_run_is_killed() -> None:
    """The process leads its own session, as a function under test does, so no signal of the terminal reaches it."""
    with killed_leftovers():
        process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    assert process.wait(timeout=LIMIT_S) == -signal.SIGKILL
