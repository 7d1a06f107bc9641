"""The declaration that extract_features follows."""

from recsys.declaration.agreement import agree
from recsys.declaration.types import Declaration
from recsys.stores.port import FeatureStore


async def follow_store(store: FeatureStore, given: Declaration | None) -> Declaration:
    """
    Return the declaration of *store*, or the one *given* by the setting if the store was never filled.

    Raises:
        DeclarationError: the two differ.
        StoreError: the store cannot be read.
    """
    if given and await store.population() is None:
        return given
    return agree(given, await store.declaration(), holder="the feature store")
