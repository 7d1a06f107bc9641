"""Trainings in state directories, and what they leave there."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

from offline.state import StateDirectory
from recrank.artefact import Artefact, read_artefact
from recstore.port import EventOutcome, FeatureStore
from recstore.urls import open_store
from recsys.records import Interaction, UserRecord
from tools.cli.verbs import main

Result = TypeVar("Result")


def write_csv(path: Path, header: str, rows: Iterable[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", "utf-8")
    return path


def run(*words: object) -> int:
    """Run a verb and return its exit status."""
    return main([str(word) for word in words])


def train(folder: Path, *words: object) -> int:
    """Train into the state directory *folder* and return the exit status."""
    return run("train", "--state-dir", folder, *words)


def model_of(folder: Path) -> Path:
    """Return the folder of the current model."""
    state = StateDirectory(folder)
    return state.model_path(state.require_current())


def artefact_of(folder: Path) -> Artefact:
    return read_artefact(model_of(folder))


def store_of(folder: Path) -> str:
    """Return the URL of the current store."""
    state = StateDirectory(folder)
    return state.store_url(state.require_current())


def in_store(url: str, use: Callable[[Any], Awaitable[Result]], **options: Any) -> Result:
    """Open a store, and return what *use* of it gives."""

    async def call() -> Result:
        async with aclosing(open_store(url, **options)) as store:
            return await use(store)

    return asyncio.run(call())


async def scan(store: FeatureStore) -> list[UserRecord]:
    return [record async for record in store.scan()]


def records_of(folder: Path) -> list[UserRecord]:
    """Return the records of the current store."""
    return in_store(store_of(folder), scan)


def apply_events(url: str, *told: Interaction) -> None:
    """Let the store count interactions, none of which it knows."""
    assert set(in_store(url, lambda store: store.apply(told))) == {EventOutcome.ACCEPTED}
