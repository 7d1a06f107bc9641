"""The Service as it was before the rollout under way, on disk, so that a killed rollout can be undone later."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.deployment.kn import KnError

_SUFFIX = ".unfinished.json"


def journal_of(service: str, folder: Path) -> "Journal":
    """Return the journal of the rollouts of *service* whose reports are in *folder*."""
    return Journal(folder / f".{service}{_SUFFIX}")


def unfinished_rollouts(folder: Path) -> list[str]:
    """Return the Services with a rollout that is running or was killed."""
    files = sorted(folder.glob(f".*{_SUFFIX}"))
    return [file.name[1:].removesuffix(_SUFFIX) for file in files if Journal(file).unfinished()]


class Journal:
    """
    One file for a Service; it has content exactly while a rollout of that Service is unfinished.

    Args:
        path: The file; its directory is made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def held(self) -> Iterator[None]:
        """
        Keep other rollouts of the Service on this machine out while the block runs.

        Raises:
            KnError: Another rollout of the Service is running.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise KnError(f"{self._path}: another rollout of this Service is running; wait for its end") from error
            yield

    def unfinished(self) -> dict[str, Any] | None:
        """Return the Service as it was before a rollout that never ended; None if every rollout ended."""
        try:
            before = json.loads(self._path.read_text("utf-8") or "null")
        except ValueError:  # the rollout was killed while it wrote, so before it changed anything
            return None
        return before if isinstance(before, dict) else None

    def begin(self, before: Mapping[str, Any]) -> None:
        """Keep *before* until `end`."""
        with self._path.open("w", encoding="utf-8") as file:
            file.write(json.dumps(before))
            file.flush()
            os.fsync(file.fileno())

    def end(self) -> None:
        """Forget the rollout: the Service is as it should be."""
        self._path.write_text("", "utf-8")
