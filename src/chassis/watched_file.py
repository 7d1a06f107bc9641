"""Read files that may change while the process runs, such as a mounted Secret or ConfigMap."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

LOOK_AGAIN_S = 1.0

log = logging.getLogger("chassis")


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, without the byte order mark that some editors write before it."""
    return path.read_text("utf-8-sig")


class WatchedFile(Generic[T]):
    """
    The parsed content of a file, checked for changes at most once a second.

    While the file cannot be read, the last content stays, because the file may be in the middle of a replacement. The log
    gets the reason once, until the file has been read again or the reason changes.

    Args:
        path: The file, which may not exist yet.
        parse: Turns the text into the content; raises ValueError if the text is unusable.
        unread: The content until the file has been read.
        clock: Seconds of a clock that never falls.

    Attributes:
        was_read: Whether the file has been read at least once.
        content: The content when the file was last read.
    """

    def __init__(
        self, path: Path, parse: Callable[[str], T], *, unread: T, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._parse = parse
        self._clock = clock
        self._looked = float("-inf")
        self._stamp: tuple[int, int, int] | None = None
        self._reason = ""
        self.was_read = False
        self.content = unread

    @property
    def due(self) -> bool:
        """Whether the file should be checked now."""
        return not self._looked <= self._clock() < self._looked + LOOK_AGAIN_S

    def look(self) -> bool:
        """Read the file if it has changed, and tell whether it was read. May block."""
        self._looked = self._clock()
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp == self._stamp:
                self._reason = ""
                return False
            self.content = self._parse(read_text(self._path))
        except (OSError, ValueError) as error:
            if self._reason != (reason := type(error).__name__):
                self._reason = reason
                log.warning("file_unreadable", extra={"path": str(self._path), "reason": reason})
            return False
        self._stamp, self._reason = stamp, ""
        self.was_read = True
        return True
