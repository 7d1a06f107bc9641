"""
Runs inside an image build: copies redis-server, redis-cli and their shared libraries into a root file system.

    python3 -m tools.images.redis ROOT

If the base image does not have the programs, its package manager installs them.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tools.images.assemble import configure, libraries, place

PROGRAMS = ("redis-server", "redis-cli")


def main(root: Path) -> int:
    """Copy the programs and their libraries into *root*; return the exit status."""
    if not all(map(shutil.which, PROGRAMS)) and not _install():
        print("the base image has neither redis-server nor apt-get; set BASE to another image", file=sys.stderr)
        return 1
    programs = [Path(path) for path in map(shutil.which, PROGRAMS) if path]
    for path in (*programs, *libraries(programs, root=root)):
        place(path, root)
    configure(root)
    return 0


def _install() -> bool:
    """Install the packages in this build stage; return whether that worked."""
    update, install = ["update"], ["install", "-y", "--no-install-recommends", "redis-server", "redis-tools"]
    return bool(shutil.which("apt-get")) and all(
        subprocess.run(["apt-get", "-qq", *words], stdout=subprocess.DEVNULL, check=False).returncode == 0  # noqa: S607
        for words in (update, install)
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
