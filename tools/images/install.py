"""
Runs inside a build: installs a lock file's packages into a folder, from wheels, hashes checked.

    python3 install.py FOLDER REQUIREMENTS...

pip comes from the base where that has one, else from its ensurepip, else from its package manager.
"""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence

_FLAGS = ("--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile", "--disable-pip-version-check",
          "--no-cache-dir", "--root-user-action=ignore")  # fmt: skip


def main(folder: str, requirements: Sequence[str]) -> int:
    """Install; return the exit status."""
    pip = find_pip()
    if pip is None:
        print(
            "the base image has no pip, no ensurepip and no apt-get: hand in one with pip as BUILD_BASE",
            file=sys.stderr,
        )
        return 1
    wanted = [word for path in requirements for word in ("-r", path)]
    return subprocess.run([*pip, "install", "-qq", *_FLAGS, "--target", folder, *wanted], check=False).returncode


def find_pip() -> list[str] | None:
    """Return the words that start pip, after installing it in this stage where it is missing."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("ensurepip") and _runs([sys.executable, "-m", "venv", "/pip"]):
        return ["/pip/bin/python", "-m", "pip"]
    packages = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "python3-pip"]
    if shutil.which("apt-get") and _runs(["apt-get", "update", "-qq"]) and _runs(packages):
        return ["/usr/bin/python3", "-m", "pip"]
    return None


def _runs(command: Sequence[str]) -> bool:
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
