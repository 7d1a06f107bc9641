"""From a URL to a store."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from recsys.stores.counting import DEDUPLICATION_WINDOW_S
from recsys.stores.memory import MemoryStore
from recsys.stores.port import FeatureStore, StoreFormatError
from recsys.stores.sqlite import SqliteStore


def open_store(
    url: str, *, password: str | None = None, window_s: float = DEDUPLICATION_WINDOW_S, ttl_s: int = 0
) -> FeatureStore:
    """
    Return the store *url* names.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db`, `redis://HOST:PORT/DB`, `rediss://…` or `memory:`.
        password: For Redis, where it is not in the URL.
        window_s: How long an event is known as repeated.
        ttl_s: For Redis: a user without events for so long is forgotten; 0 for never.

    Raises:
        StoreFormatError: the URL is of no known kind, or the store is not one of ours.
        StoreUnavailableError: the store cannot be opened now.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise StoreFormatError(f"the feature store's URL cannot be read: {error}") from error
    if parts.scheme == "memory":
        return MemoryStore(window_s=window_s)
    if parts.scheme == "sqlite" and not parts.netloc and len(parts.path) > 1:
        return SqliteStore(Path(unquote(parts.path[1:])), window_s=window_s)
    if parts.scheme in {"redis", "rediss"} and parts.hostname:
        from recsys.stores.redis import RedisStore  # noqa: PLC0415 - only extract_features' image has the client

        return RedisStore(url, password=password, window_s=window_s, ttl_s=ttl_s)
    raise StoreFormatError(
        f"{parts.scheme or 'an empty'} URL is no feature store; use sqlite:///FILE, redis://HOST:PORT/DB or memory:"
    )
