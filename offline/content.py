"""The content of a feature store, to train on."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from tqdm import tqdm

from offline.catalogue import read_entries
from recstore.catalogue.entries import Entry
from recstore.erasures import Erasure
from recstore.urls import open_store
from recsys.declaration.reader import default_declaration
from recsys.declaration.types import Declaration
from recsys.records import UserRecord


@dataclass(frozen=True)
class StoreContent:
    """
    The content of a feature store.

    Attributes:
        records: All users with their histories.
        declaration: The declaration that the store follows.
        entries: The changes of items since the last training, by item.
        erasures: The erasures that happened before *records* were read.
    """

    records: Sequence[UserRecord]
    declaration: Declaration
    entries: Mapping[str, Entry] = field(default_factory=dict)
    erasures: Sequence[Erasure] = ()


async def read_store(url: str, *, password: str | None = None) -> StoreContent:
    """
    Return the content of the store at *url*.

    Raises:
        StoreError: the store cannot be read.
    """
    async with aclosing(open_store(url, password=password)) as store:
        erasures = await store.erasures()
        with tqdm(desc="reading the store", unit="user", disable=None) as bar:
            records = [record async for record in store.scan() if bar.update() or True]
        declaration = await store.declaration() or default_declaration()
    return StoreContent(records, declaration, await read_entries(url, password=password), erasures)
