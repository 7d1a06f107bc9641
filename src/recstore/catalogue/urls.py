"""Open the catalogue of the feature store that a URL names."""

from recstore.catalogue.entries import Catalogue
from recstore.catalogue.memory import MemoryCatalogue
from recstore.catalogue.sqlite import SqliteCatalogue
from recstore.urls import split_url, sqlite_path


def open_catalogue(url: str, *, password: str | None = None) -> Catalogue:
    """
    Return the catalogue of the feature store at *url*, which exists.

    Raises:
        StoreError: as for `open_store`.
    """
    parts = split_url(url)
    if parts.scheme == "memory":
        return MemoryCatalogue()
    if parts.scheme == "sqlite":
        return SqliteCatalogue(sqlite_path(parts))
    from recstore.catalogue.redis import RedisCatalogue  # noqa: PLC0415 - only images that use Redis have the client

    return RedisCatalogue(url, password=password)
