"""Starts programs of this project in processes of their own, and a pipeline that ends with a block."""

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localkn.processes import free_port

ROOT = Path(__file__).parents[1]


def run(*command: str) -> None:
    """
    Run *command* in the root of the project, and keep its output back.

    Raises:
        RuntimeError: It failed; the message has its errors.
    """
    ended = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed: {ended.stderr.strip()}")


def run_verb(*words: str, state_dir: Path) -> None:
    """Run a verb of `./run.sh`, which installs what the verb needs, on *state_dir*; see `run`."""
    run("./run.sh", *words, "--state-dir", str(state_dir))


@contextmanager
def verb_up(state_dir: Path, *words: str, port: int | None = None) -> Iterator[int]:
    """Run `./run.sh up` with *words* until the block ends; yield its port, a free one if none is given."""
    port = port or free_port()
    run_verb("up", "--detach", "--port", str(port), *words, state_dir=state_dir)
    try:
        yield port
    finally:
        run_verb("down", state_dir=state_dir)
