"""Get a model from its place: read a folder, or copy what an object store has."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from recrank.places import ModelPlace, PlaceError

_CACHE = "recsys-model-"


class ModelSource(Protocol):
    """
    Where an instance gets its model from. Its methods block, and one thread at a time calls them.

    Attributes:
        changes: Whether another model may appear there.
    """

    changes: bool

    def fetch(self) -> Path | None:
        """
        Return a folder with the model that the place has now; None if that is the model of the last call.

        Raises:
            PlaceError: the place cannot be read now.
            ArtefactError: the model there is damaged. The source passes it over until the next publication.
        """

    def keep(self, folder: Path) -> None:
        """Delete every other folder that `fetch` returned."""


class FolderSource:
    """A model in *folder*, which stays the same."""

    changes = False

    def __init__(self, folder: Path) -> None:
        self._folder: Path | None = folder

    def fetch(self) -> Path | None:
        """Return the folder in the first call, and None afterwards."""
        folder, self._folder = self._folder, None
        return folder

    def keep(self, folder: Path) -> None:
        """Delete nothing: the folder is not a copy."""


@contextmanager
def opened_source(place: ModelPlace) -> Iterator[ModelSource]:
    """
    Yield the source of the models at *place*. When the block ends, a download ends and all copies are deleted.

    Raises:
        PlaceError: the program has no client for the place, or the temporary directory cannot be written.
    """
    if isinstance(place, Path):
        yield FolderSource(place)
        return
    from recrank.bucket import Bucket, BucketSource  # noqa: PLC0415 - only some images have the client

    with _cache_folder() as cache:
        source = BucketSource(Bucket(place), cache)
        try:
            yield source
        finally:
            source.stop()


@contextmanager
def _cache_folder() -> Iterator[Path]:
    """Yield a temporary folder of this process, and delete those that killed processes have left."""
    parent = Path(tempfile.gettempdir())
    try:
        with _locked(parent / f"{_CACHE}lock"):
            for left in parent.glob(f"{_CACHE}*/"):
                _sweep(left)
            folder = Path(tempfile.mkdtemp(prefix=_CACHE))
            held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(held, fcntl.LOCK_EX)
    except OSError as error:
        raise PlaceError(f"{parent}: cannot hold a model: {error.strerror}; set TMPDIR to a writable folder") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _sweep(folder: Path) -> None:
    """Delete *folder* unless a running process holds its lock, or it belongs to another user."""
    try:
        with _locked(folder, flags=os.O_RDONLY, wait=False):
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return


@contextmanager
def _locked(path: Path, *, flags: int = os.O_RDWR | os.O_CREAT, wait: bool = True) -> Iterator[None]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)
