"""
Runs inside an image build: installs the packages of lock files into a folder, from wheels, and checks their hashes.

    python3 install.py FOLDER REQUIREMENTS...

The script uses the base image's pip; or installs pip with ensurepip; or with the package manager.
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
            "the base image has no pip, ensurepip or apt-get; set BUILD_BASE to an image with pip",
            file=sys.stderr,
        )
        return 1
    wanted = [word for path in requirements for word in ("-r", path)]
    return subprocess.run([*pip, "install", "-qq", *_FLAGS, "--target", folder, *wanted], check=False).returncode


def find_pip() -> list[str] | None:
    """Return the command that runs pip, after installing pip if it is missing; None if that is impossible."""
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
