"""Disk space that is held back for the writes that must not fail."""

import os
from pathlib import Path


class Reserve:
    """
    A file that takes *size_bytes* of the disk; removing it makes room.

    The space is written, not only allocated: not every system and file system can promise room for a file. It is taken
    only where a quarter as much stays free, so that the next write does not need it again.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path, self._size_bytes = path, size_bytes
        self._path.unlink(missing_ok=True)
        self.is_held = False

    def hold(self) -> bool:
        """Take the space unless it is taken; return whether it is."""
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
        """Give the space back."""
        self._path.unlink(missing_ok=True)
        self.is_held = False
