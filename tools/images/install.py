"""
Runs inside an image build: installs the packages of lock files into a folder, from wheels, and checks their hashes.

    python3 install.py FOLDER REQUIREMENTS...

The script uses the base image's pip; or installs pip with ensurepip; or with the package manager. If a wheel is linked
with a shared library that the base image lacks, the package manager installs that, too.
"""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

_FLAGS = ("--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile", "--disable-pip-version-check",
          "--no-cache-dir", "--root-user-action=ignore")  # fmt: skip

# Shared libraries outside the manylinux standard that wheels are linked with, and Debian's packages of them.
_PACKAGES = {"libgomp.so.1": "libgomp1"}


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
    done = subprocess.run([*pip, "install", "-qq", *_FLAGS, "--target", folder, *wanted], check=False)
    absent = missing(Path(folder).rglob("*.so*"))
    if absent and not install_packages(*(_PACKAGES[library] for library in absent)):
        print(f"the base image has neither {', '.join(absent)} nor an apt-get that works", file=sys.stderr)
        return 1
    return done.returncode


def missing(binaries: Iterable[Path]) -> list[str]:
    """Return the libraries of `_PACKAGES` that *binaries* are linked with and the base image lacks."""
    listed = "".join(
        subprocess.run(["ldd", str(each)], capture_output=True, text=True, check=False).stdout  # noqa: S607
        for each in binaries
    )
    return [library for library in _PACKAGES if f"{library} => not found" in listed]


def find_pip() -> list[str] | None:
    """Return the command that runs pip, after installing pip if it is missing; None if that is impossible."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("ensurepip") and _runs([sys.executable, "-m", "venv", "/pip"]):
        return ["/pip/bin/python", "-m", "pip"]
    return ["/usr/bin/python3", "-m", "pip"] if install_packages("python3-pip") else None


def install_packages(*packages: str) -> bool:
    """Install Debian's *packages* in this build stage; return whether that worked."""
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    return bool(shutil.which("apt-get")) and _runs(["apt-get", "update", "-qq"]) and _runs(command)


def _runs(command: Sequence[str]) -> bool:
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
