"""Open the exposure log of the feature store that a URL names."""

from recstore.exposures.log import MOST_PER_USER, RETENTION_S, ExposureLog
from recstore.exposures.sqlite import SqliteExposures
from recstore.port import StoreFormatError
from recstore.urls import split_url, sqlite_path


def open_exposures(
    url: str, *, password: str | None = None, retention_s: float = RETENTION_S, most_per_user: int = MOST_PER_USER
) -> ExposureLog:
    """
    Return the exposure log of the feature store at *url*, which exists.

    Raises:
        StoreFormatError: the store is in memory and has no log.
        StoreError: as for `open_store`.
    """
    parts = split_url(url)
    if parts.scheme == "memory":
        raise StoreFormatError(
            "a feature store in memory has no exposure log; use sqlite:///FILE or redis://HOST:PORT/DB"
        )
    if parts.scheme == "sqlite":
        return SqliteExposures(sqlite_path(parts), retention_s=retention_s, most_per_user=most_per_user)
    from recstore.exposures.redis import RedisExposures  # noqa: PLC0415 - only extract_features' image has the client

    return RedisExposures(url, password=password, retention_s=retention_s, most_per_user=most_per_user)
