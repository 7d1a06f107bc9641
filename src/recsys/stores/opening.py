"""From a URL to a store."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from recsys.stores.memory import MemoryStore
from recsys.stores.port import FeatureStore, StoreFormatError
from recsys.stores.sqlite import SqliteStore


def open_store(url: str) -> FeatureStore:
    """
    Return the store *url* names: `sqlite:///relative.db`, `sqlite:////absolute.db` or `memory:`.

    Raises:
        StoreFormatError: the URL is of no known kind, or the store is not one of ours.
        StoreUnavailableError: the store cannot be opened now.
    """
    parts = urlsplit(url)
    if parts.scheme == "memory":
        return MemoryStore()
    if parts.scheme == "sqlite" and not parts.netloc and len(parts.path) > 1:
        return SqliteStore(Path(unquote(parts.path[1:])))
    raise StoreFormatError(f"{parts.scheme or 'an empty'} URL is no feature store; use sqlite:///FILE or memory:")
