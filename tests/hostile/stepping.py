"""
Train again and again, each time with a fault at a later step, and print what is left as JSON lines.

    python tests/hostile/stepping.py kill|full STATE CSV

STATE holds a trained state directory and is left alone; each training works on a copy. A step is a call that opens,
makes, renames or removes a file of the copy (an audit event of Python's, PEP 578) or an SQL statement. `kill` ends the
process with SIGKILL just before the step, `full` fails the step as a full disk does.
"""

import contextlib
import errno
import io
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from offline.inputs import DataOptions
from offline.state import StateDirectory
from offline.train import TrainingPlan
from offline.train import run as train
from recrank.artefact import read_artefact

_STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "sqlite3.connect"}
_WRITING = {"os.mkdir", "os.rename"}


def main() -> None:
    """Print a line for each step until a training ends without reaching its step."""
    mode, trained, csv = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    former = inspect(trained)
    step = 0
    while True:
        step += 1
        folder = trained.with_name(f"{trained.name}-{mode}")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(trained, folder)
        status, printed, event = run(folder, csv, fault=(mode, step))
        left = inspect(folder)
        again, _, _ = run(folder, csv, fault=None)
        line = {
            "step": step,
            "event": event,
            "status": status,
            "printed": printed,
            "left": "former" if left == former else left,
            "again": again,
            "drafts": [path.name for path in (folder / "drafts").iterdir()],
        }
        print(json.dumps(line), flush=True)
        if not event:
            return


def inspect(folder: Path) -> str:
    """Return the current pair after reading all of it."""
    state = StateDirectory(folder)
    current = state.require_current()
    version = read_artefact(state.model_path(current)).manifest.version
    state.verify_store(current)
    return f"{current.store} {version}"


def run(folder: Path, csv: Path, *, fault: tuple[str, int] | None) -> tuple[int, str, str]:
    """Train in a child process; return its exit status, its standard error, and the step at which it failed."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
            if fault:
                sys.addaudithook(stop_at(*fault, folder=folder, tell=lambda event: os.write(writer, event.encode())))
            try:
                status = train(TrainingPlan(DataOptions(csv), state_dir=folder))
            except BaseException as error:
                errors.write(f"Traceback: {error!r}")
                status = 99
        os.write(writer, f"\n{errors.getvalue()}".encode())
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        event, _, printed = pipe.read().partition("\n")
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), printed, event


def stop_at(mode: str, step: int, *, folder: Path, tell: Callable[[str], object]) -> Callable[[str, Any], None]:
    """Return an audit hook that counts the steps in *folder* and fails at *step*."""
    passed = 0

    def fail(event: str) -> None:
        nonlocal passed
        passed += 1
        if passed != step:
            return
        tell(event)
        if mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _STEPS or str(folder) not in str(arguments[0]):
            return
        writes = event in _WRITING or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if writes or mode == "kill":
            fail(f"{event} {Path(str(arguments[0])).name}")

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = plain_connect(*arguments, **options)
        connection.set_trace_callback(lambda statement: fail(" ".join(statement.split()[:2])))
        return connection

    plain_connect = sqlite3.connect
    if mode == "kill":
        sqlite3.connect = connect  # type: ignore[assignment]
    return hook


if __name__ == "__main__":
    main()
