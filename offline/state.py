"""
The state directory of a local pipeline: feature stores, models, and a pointer to the current pair.

    current.json            {"store": "stores/1-demo.db", "model": "models/1-3f2a…", "dataset": "demo"}
    stores/N-NAME.db        one per import
    models/N-VERSION/       one per training
    drafts/                 files that the training in progress writes; the next training deletes them
    declarations/           the declarations that the running functions follow
    lock                    locked by the training in progress; contains its process id

A training writes drafts, renames them into place, and replaces `current.json` last. Each step is on disk before the
next begins, so a reader finds the former pair or the new one, and a killed training leaves the former pair. A running
pipeline keeps the files it has open; the next start uses the new pair.
"""

import asyncio
import contextlib
import fcntl
import os
import shlex
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from recrank.artefact import read_artefact
from recstore.sqlite import SqliteStore
from recstore.urls import sqlite_url
from recsys.declaration.reader import default_declaration
from recsys.declaration.types import Declaration

DEFAULT = Path(".recsys")
"""The state directory of commands that name none."""
CURRENT = "current"
"""Stands for the URL of the current store."""

_POINTER, _PARTS, _DRAFTS = "current.json", ("stores", "models"), "drafts"


class StateError(Exception):
    """The state directory cannot be used; the message says why and what to do."""


class Current(Struct, frozen=True):
    """
    The pair that the next start serves; paths are relative to the state directory.

    The store is "" if the model was trained on a store elsewhere, as on a cluster.
    """

    store: str
    model: str
    dataset: str


class StateDirectory:
    """A state directory. Reading creates no files; `locked` creates the folders that a writer needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @property
    def option(self) -> str:
        """The option that names the directory to a verb of `./run.sh`, with a space before it; "" for the usual one."""
        return "" if self.folder == DEFAULT.absolute() else f" --state-dir {shlex.quote(str(self.folder))}"

    def current(self) -> Current | None:
        """
        Return the current pair, or None before the first training.

        Raises:
            StateError: the pointer exists and is unreadable.
        """
        path = self.folder / _POINTER
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise StateError(f"{path}: is not a regular file; remove it and run ./run.sh train")
            return msgspec.json.decode(path.read_bytes(), type=Current)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"{path}: cannot be read: {error.strerror}; check --state-dir") from error
        except (ValueError, RecursionError) as error:
            raise StateError(f"{path}: is damaged ({error}); ./run.sh train replaces it") from error

    def require_current(self) -> Current:
        """
        Return the current pair.

        Raises:
            StateError: no training has finished yet, or the pointer is unreadable.
        """
        current = self.current()
        if current is None:
            raise StateError(f"{self.folder}: nothing was trained here yet; run ./run.sh train or ./run.sh up")
        return current

    def serving_command(self, model: str) -> str:
        """Return the command, quoted for a shell, that lets the running pipeline serve *model*, a relative path."""
        setting = shlex.quote(f"MODEL_PATH={self.folder / model}")
        return f"./run.sh kn service update rank-items --env {setting}{self.option}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """
        Lock the directory for the only writer: create it, wait for another writer to end, and delete old drafts.

        The operating system releases the lock when the process ends, even if it is killed.

        Raises:
            StateError: the directory cannot be created or written.
        """
        with _explained(self.folder), contextlib.ExitStack() as held:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            held.callback(os.close, descriptor)
            _wait_for(descriptor, self.folder)
            for part in _PARTS:
                (self.folder / part).mkdir(exist_ok=True)
            shutil.rmtree(self.folder / _DRAFTS, ignore_errors=True)
            (self.folder / _DRAFTS).mkdir()
            yield

    def draft(self, name: str) -> Path:
        """Return the path of a draft. The caller must hold the lock."""
        return self.folder / _DRAFTS / name

    def publish(self, draft: Path, part: str, name: str) -> str:
        """
        Write *draft* to disk and rename it to a new name under *part*; return its path relative to the directory.

        The result is complete but not current. The caller must hold the lock.
        """
        _sync(draft)
        path = self._new_path(part, name)
        draft.rename(self.folder / path)
        _sync_entry(self.folder / part)
        return path

    def advance(self, current: Current) -> None:
        """Make *current* the pair that the next start serves. The caller must hold the lock."""
        draft = self.draft(_POINTER)
        draft.write_bytes(msgspec.json.encode(current))
        _sync(draft)
        draft.replace(self.folder / _POINTER)
        _sync_entry(self.folder)

    def store_url(self, current: Current) -> str:
        """
        Return the URL of the current store.

        Raises:
            StateError: the store is elsewhere.
        """
        if not current.store:
            raise StateError(f"{self.folder}: holds models only; their store is elsewhere")
        return sqlite_url(self.folder / current.store)

    def stores(self) -> list[Path]:
        """Return the files of all stores, also of earlier imports."""
        return sorted((self.folder / "stores").glob("*.db"))

    def model_path(self, current: Current) -> Path:
        """Return the folder of the current model."""
        return self.folder / current.model

    def find_model(self, version: str) -> Path | None:
        """Return the folder of the model with *version*; None if the directory does not hold it."""
        return next((self.folder / "models").glob(f"*-{version}"), None) if version else None

    def verify_store(self, current: Current) -> None:
        """
        Read the whole current store to verify it.

        Raises:
            StoreError: the store does not exist, is damaged, or was never filled.
        """

        async def verify() -> None:
            async with aclosing(SqliteStore(self.folder / current.store)) as store:
                await store.verify()

        asyncio.run(verify())

    def declaration(self, current: Current, *, given: Declaration | None = None) -> Declaration:
        """
        Return the declaration to serve with: the one *given*, or that of the model.

        Raises:
            StateError: the declarations of the model, of the store and the one given differ; names the field.
            ArtefactError, StoreError: the model or the store cannot be read.
        """
        held = read_artefact(self.model_path(current)).declaration
        stored = asyncio.run(self._stored_declaration(current)) or default_declaration()
        _check_agreement(held, stored, f"the store {current.store}", "run ./run.sh train")
        _check_agreement(
            held, given or held, "--declaration", "run ./run.sh train with it, or correct it", features=True
        )
        return given or held

    async def _stored_declaration(self, current: Current) -> Declaration | None:
        async with aclosing(SqliteStore(self.folder / current.store)) as store:
            return await store.declaration()

    def environment(self, *, fused: bool = False, declaration: Declaration | None = None) -> list[str]:
        """
        Verify the current pair and return the settings `SERVICE:NAME=VALUE` with which the functions serve it.

        Args:
            fused: Whether the settings are for the single Service that contains all functions.
            declaration: A declaration to serve with, for its rules; None serves with the model's.

        Raises:
            StateError, ArtefactError, StoreError: nothing was trained yet, or the pair cannot be served.
        """
        current = self.require_current()
        self.verify_store(current)
        followed = f"RECSYS_DECLARATION={self._keep(self.declaration(current, given=declaration))}"
        store = self.store_url(current)
        settings = {
            "extract-features": [f"FEATURE_STORE_URL={store}", followed],
            "rank-items": [f"MODEL_PATH={self.model_path(current)}", f"CATALOGUE_URL={store}", followed],
            "recommend": [f"POPULAR_LIST_PATH={self.folder / 'popular.json'}"],
        }
        named = [("recommend" if fused else service, each) for service, some in settings.items() for each in some]
        return [f"{service}:{setting}" for service, setting in dict.fromkeys(named)]

    def _keep(self, declaration: Declaration) -> Path:
        """Write *declaration* to a file that does not change while instances start, and return its path."""
        path = self.folder / "declarations" / f"{declaration.digest[:12]}.json"
        with _explained(self.folder):
            path.parent.mkdir(exist_ok=True)
            draft = path.with_suffix(f".{os.getpid()}")
            draft.write_bytes(msgspec.json.format(declaration.encode(), indent=2))
            draft.replace(path)
        return path

    def _new_path(self, part: str, name: str) -> str:
        taken = [each.name.partition("-")[0] for each in (self.folder / part).iterdir()]
        numbers = [int(number) for number in taken if number.isascii() and number.isdecimal()]
        return f"{part}/{max(numbers, default=0) + 1}-{name}"


def _check_agreement(held: Declaration, other: Declaration, name: str, remedy: str, *, features: bool = False) -> None:
    if difference := held.describe_difference(other, mine="the model", theirs=name, features=features):
        raise StateError(f"{difference}; {remedy}")


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Raise `StateError` for an error of the operating system in the block."""
    try:
        yield
    except BrokenPipeError:  # of the standard output
        raise
    except OSError as error:
        raise StateError(
            f"{error.filename or folder}: cannot be written: {error.strerror or error}; "
            "check the folder and its free space"
        ) from error


def _wait_for(descriptor: int, folder: Path) -> None:
    """Lock the file of *descriptor* and write this process's id into it; print a line if another process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
        print(f"{folder}: waiting for the training in process {holder} to end", file=sys.stderr)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _sync(path: Path) -> None:
    """Write *path*, a file or a folder of files, to disk."""
    for file in path.iterdir() if path.is_dir() else ():
        _sync_entry(file)
    _sync_entry(path)


def _sync_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
