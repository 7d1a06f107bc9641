"""End the processes that a test run leaves when it is interrupted or killed."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

_VARIABLE = "STARTED_BY_TESTS"
# The shell ends its wait when its stdin closes, which happens however this process ends. The shell runs in a new session
# and ignores the signals of the terminal, so that it outlives this process. Every process that a test starts inherits
# the variable, also those that lead their own session. Without /proc, the shell finds no processes.
_GUARDIAN = """
trap '' INT TERM HUP
read -r _
while
  files=$(grep --files-with-matches --null-data --no-messages --line-regexp "$1" /proc/[0-9]*/environ)
  [ "$files" ]
do
  for file in $files; do process=${file%/environ}; kill -s KILL "${process#/proc/}"; done
done 2>/dev/null
"""


@contextmanager
def killed_leftovers() -> Iterator[None]:
    """Kill every process that the block starts and does not end; also if this process is killed during the block."""
    marked = f"{os.getpid()}-{os.urandom(8).hex()}"
    command = ["/bin/sh", "-c", _GUARDIAN, "guardian", f"{_VARIABLE}={marked}"]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True),
        patch.dict(os.environ, {_VARIABLE: marked}),
    ):
        yield
