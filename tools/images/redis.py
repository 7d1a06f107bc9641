"""
Runs inside an image build: copies redis-server, redis-cli and their shared libraries into a root file system.

    python3 -m tools.images.redis ROOT

If the base image does not have the programs, its package manager installs them.
"""

import shutil
import sys
from pathlib import Path

from tools.images.assemble import configure, libraries, place
from tools.images.install import install_packages

PROGRAMS = ("redis-server", "redis-cli")


def main(root: Path) -> int:
    """Copy the programs and their libraries into *root*; return the exit status."""
    if not all(map(shutil.which, PROGRAMS)) and not install_packages("redis-server", "redis-tools"):
        print(
            "the base image has neither redis-server nor an apt-get that works; set BASE to another image",
            file=sys.stderr,
        )
        return 1
    programs = [Path(path) for path in map(shutil.which, PROGRAMS) if path]
    for path in (*programs, *libraries(programs, root=root)):
        place(path, root)
    configure(root)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
