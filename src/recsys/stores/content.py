"""The whole content of a feature store, for copying it into another one."""

from collections.abc import Iterable
from dataclasses import dataclass

from recsys.contracts.wire import Features
from recsys.features import UNKNOWN_FEATURES
from recsys.records import UserRecord
from recsys.stores.port import FeatureStore, StoreMissingError


@dataclass(frozen=True)
class StoreContent:
    """
    Everything that a copy takes over.

    Attributes:
        records: Every user.
        population: The defaults for unknown users.
    """

    records: Iterable[UserRecord]
    population: Features


async def copy_store(source: FeatureStore, target: FeatureStore) -> int:
    """
    Replace the content of *target* by that of *source*; return the number of users.

    The copy does not include the events seen: pause the senders, or an event delivered to both stores counts twice.

    Raises:
        StoreMissingError: *source* holds no users.
    """
    return await write_content(target, await read_content(source))


async def read_content(source: FeatureStore, *, allow_empty: bool = False) -> StoreContent:
    """
    Return the content of *source*.

    Raises:
        StoreMissingError: *source* holds no users, and *allow_empty* is off.
    """
    # `replace` takes a plain iterable, which a store may walk in a thread. Records are small enough to be held in memory.
    records = [record async for record in source.scan()]
    if not records and not allow_empty:
        raise StoreMissingError("the source holds no users, so a copy would empty the target")
    return StoreContent(records, await source.population() or UNKNOWN_FEATURES)


async def write_content(target: FeatureStore, content: StoreContent) -> int:
    """Replace the content of *target*; return the number of users."""
    return await target.replace(content.records, population=content.population)
