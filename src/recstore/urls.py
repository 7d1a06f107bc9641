"""Open the feature store that a URL names."""

import re
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit

from chassis.environment import Reader
from recstore.counters import DEDUPLICATION_WINDOW_S
from recstore.memory import MemoryStore
from recstore.port import FeatureStore, StoreFormatError
from recstore.sqlite import SqliteStore

_DATABASE = re.compile(r"(/[0-9]*)?")
_KINDS = "use sqlite:///FILE, redis://HOST:PORT/DB or memory:"


def require_store_url(env: Reader, name: str, url: str | None) -> None:
    """Add a fault to *env* if *url*, the value of the setting *name*, cannot name a feature store. None names none."""
    try:
        if url:
            split_url(url)
    except StoreFormatError as error:
        env.faults.append(f"{name}: {error}")


def same_place(one: str, other: str) -> bool:
    """Tell whether two valid URLs name the same store, as far as their text and the file system show."""
    first, second = split_url(one), split_url(other)
    if first.scheme == second.scheme == "sqlite":
        return sqlite_path(first).resolve() == sqlite_path(second).resolve()
    places = [(each.scheme, each.hostname, each.port or 6379, each.path.strip("/") or "0") for each in (first, second)]
    return places[0] == places[1] and first.scheme != "memory"


def open_store(
    url: str,
    *,
    create: bool = False,
    password: str | None = None,
    window_s: float = DEDUPLICATION_WINDOW_S,
    ttl_s: int = 0,
) -> FeatureStore:
    """
    Return the store that *url* names.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db`, `redis://HOST:PORT/DB`, `rediss://…` or `memory:`.
        create: Make a SQLite store that does not exist. Readers leave it off, so that reading creates no file.
        password: For Redis, if the URL has none.
        window_s: Seconds during which a repeated event is recognised.
        ttl_s: For Redis: seconds without events after which a user is deleted; 0 for never.

    Raises:
        StoreMissingError: the SQLite file does not exist, and *create* is off.
        StoreFormatError: the URL is of an unknown kind, or the file is not a feature store.
        StoreUnavailableError: the store cannot be opened now.
    """
    parts = split_url(url)
    if parts.scheme == "memory":
        return MemoryStore(window_s=window_s)
    if parts.scheme == "sqlite":
        return SqliteStore(sqlite_path(parts), create=create, window_s=window_s)
    from recstore.redis import RedisStore  # noqa: PLC0415 - only extract_features' image has the client

    return RedisStore(url, password=password, window_s=window_s, ttl_s=ttl_s)


def split_url(url: str) -> SplitResult:
    """
    Return the parts of the URL of a feature store.

    Raises:
        StoreFormatError: the URL names none; the message says what is wrong with it and repeats no password.
    """
    try:
        parts = urlsplit(url)
        # `parts.port` raises for a port that is not a number; `urlsplit` does not.
        is_redis = bool(parts.hostname) and parts.port != 0 and _DATABASE.fullmatch(parts.path) is not None
        known = {
            "memory": True,
            "sqlite": not parts.netloc and len(parts.path) > 1 and "\0" not in unquote(parts.path),
            "redis": is_redis,
            "rediss": is_redis,
        }
    except ValueError as error:
        raise StoreFormatError(f"the feature store's URL cannot be read: {error}; {_KINDS}") from error
    if not known.get(parts.scheme):
        # A password stands before an @.
        shown = f"a URL of the kind {parts.scheme or 'nothing'}:" if "@" in url else repr(url)
        raise StoreFormatError(f"{shown} names no feature store; {_KINDS}")
    return parts


def sqlite_url(path: Path) -> str:
    """Return the URL of the feature store in the file at *path*."""
    return f"sqlite:///{quote(str(path))}"


def sqlite_path(parts: SplitResult) -> Path:
    """Return the path of the file that the *parts* of a URL name."""
    return Path(unquote(parts.path[1:]))
