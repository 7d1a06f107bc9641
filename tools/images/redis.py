"""
Runs inside a build: gathers Redis' server and client, and the libraries they are linked with, into a root file system.

    python3 -m tools.images.redis ROOT

They come from the base where it has them, else from its package manager.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tools.images.assemble import configure, libraries, place

PROGRAMS = ("redis-server", "redis-cli")


def main(root: Path) -> int:
    """Fill *root*; return the exit status."""
    if not all(map(shutil.which, PROGRAMS)) and not _installed():
        print(
            "the base image has neither redis-server nor apt-get to get it with: hand in another BASE", file=sys.stderr
        )
        return 1
    programs = [Path(path) for path in map(shutil.which, PROGRAMS) if path]
    for path in (*programs, *libraries(programs, root=root)):
        place(path, root)
    configure(root)
    return 0


def _installed() -> bool:
    """Install the packages in this stage; tell whether that worked."""
    update, install = ["update"], ["install", "-y", "--no-install-recommends", "redis-server", "redis-tools"]
    return bool(shutil.which("apt-get")) and all(
        subprocess.run(["apt-get", "-qq", *words], stdout=subprocess.DEVNULL, check=False).returncode == 0  # noqa: S607
        for words in (update, install)
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
