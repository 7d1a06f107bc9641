"""Runs kubectl."""

import shlex
import subprocess
from collections.abc import Sequence

_TIMEOUT_S = 60.0


class KubectlError(Exception):
    """kubectl failed; the message contains its output."""


def run_kubectl(command: Sequence[str], *words: str) -> str:
    """
    Run kubectl and return its output.

    Args:
        command: The words that start kubectl, for instance `kubectl --context prod`.
        words: The arguments of this call.

    Raises:
        KubectlError: kubectl could not be run, refused, or took longer than a minute.
    """
    line = [*command, *words]
    try:
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KubectlError(f"cannot run {line[0]}: {error}") from error
    if done.returncode:
        raise KubectlError(f"{shlex.join(line)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
