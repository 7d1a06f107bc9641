"""
The files of a rollout under way.

They keep the Service as it was before, so that a killed rollout can be undone later, and the steps so far, for the live page.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tools.deployment.kn import KnError

_SUFFIX, _PROGRESS = ".unfinished.json", ".running.json"


def journal_of(service: str, folder: Path) -> "RolloutJournal":
    """Return the journal of the rollouts of *service* whose reports are in *folder*."""
    return RolloutJournal(folder / f".{service}{_SUFFIX}")


def unfinished_rollouts(folder: Path) -> list[str]:
    """Return the Services with a rollout that is running or was killed."""
    files = sorted(folder.glob(f".*{_SUFFIX}"))
    return [file.name[1:].removesuffix(_SUFFIX) for file in files if RolloutJournal(file).unfinished()]


class RolloutJournal:
    """
    Two files for a Service. The first has content exactly while a rollout of that Service is unfinished.

    The second holds the progress of the unfinished rollout.

    Args:
        path: The first file; its directory is made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._progress = path.with_name(path.name.removesuffix(_SUFFIX) + _PROGRESS)

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

    def note(self, progress: Mapping[str, Any]) -> None:
        """Write *progress*, with this process as the one that rolls out. A fault of the disk does not stop the rollout."""
        draft = self._progress.with_suffix(".draft")
        with suppress(OSError):
            draft.write_text(json.dumps({**progress, "pid": os.getpid()}), "utf-8")
            draft.replace(self._progress)

    def end(self) -> None:
        """Forget the rollout: the Service is as it should be."""
        self._path.write_text("", "utf-8")
        with suppress(OSError):
            self._progress.unlink(missing_ok=True)
