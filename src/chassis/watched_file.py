"""Files that may change while a process runs, such as what Kubernetes mounts of a Secret or a ConfigMap."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

LOOK_AGAIN_S = 1.0

log = logging.getLogger("chassis.watched_file")


class WatchedFile(Generic[T]):
    """
    What a file says, looked at again at most once a second.

    A file that cannot be read leaves what was known: one that is being exchanged must not take anything away.

    Args:
        path: May not exist yet.
        parse: Makes of the text what is wanted; ValueError where the text is unusable.
        unread: What holds until the file could be read once.
        clock: Seconds, rising.

    Attributes:
        was_read: Whether the file could be read at least once.
        content: What it said when it was last read.
    """

    def __init__(
        self, path: Path, parse: Callable[[str], T], *, unread: T, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._parse = parse
        self._clock = clock
        self._looked = float("-inf")
        self._stamp: tuple[int, int, int] | None = None
        self.was_read = False
        self.content = unread

    @property
    def due(self) -> bool:
        """Whether it is time to look again."""
        return not self._looked <= self._clock() < self._looked + LOOK_AGAIN_S

    def look(self) -> bool:
        """
        Read the file if it is another one than before; return whether it was.

        Blocks for as long as the file system does.
        """
        self._looked = self._clock()
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp == self._stamp:
                return False
            self.content = self._parse(self._path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            log.warning("file_unreadable", extra={"path": str(self._path), "reason": type(error).__name__})
            return False
        self._stamp = stamp
        self.was_read = True
        return True
