"""Stores of each kind, for tests that every store passes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from recstore.memory import MemoryStore
from recstore.port import FeatureStore
from recstore.redis import RedisStore
from recstore.sqlite import SqliteStore
from tools.bench.redis_server import RedisServer

Opener = Callable[..., FeatureStore]


def make_opener(kind: str, request: pytest.FixtureRequest, folder: Path) -> Opener:
    if kind == "memory":
        return MemoryStore
    if kind == "sqlite":
        return lambda **options: SqliteStore(folder / "store.db", create=True, **options)
    server: RedisServer = request.getfixturevalue("redis_server")
    server.flush()
    return lambda **options: RedisStore(server.url, **options)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Return a function that opens an empty store of one kind."""
    return make_opener(request.param, request, tmp_path)


@pytest.fixture(params=["sqlite", "redis"])
def shared_opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Return a function that opens the same store repeatedly, as several instances do."""
    return make_opener(request.param, request, tmp_path)
