"""Hold back disk space for writes that must not fail."""

import os
from pathlib import Path


class Reserve:
    """
    A file of *size_bytes*; removing it makes room on the disk.

    The file is filled with zeros, because not every operating system and file system can reserve space for a file. The
    reserve is held only if a quarter of its size remains free, so that the next write does not need it again.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path, self._size_bytes = path, size_bytes
        self._path.unlink(missing_ok=True)
        self.is_held = False

    def hold(self) -> bool:
        """Write the file unless it is there; return whether the reserve is held."""
        if self.is_held:
            return True
        try:
            self._path.write_bytes(bytes(self._size_bytes * 5 // 4))
            os.truncate(self._path, self._size_bytes)
            self.is_held = True
        except OSError:
            self.release()
        return self.is_held

    def release(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)
        self.is_held = False
