"""extract_features: configuration -> store -> handler."""

import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from functions.extract_features.handler import ExtractFeatures
from functions.extract_features.settings import Settings
from recsys.serving.asgi import as_function
from recsys.serving.call import Handler
from recsys.serving.service import Service
from recsys.stores.opening import open_store

settings = Settings.from_env(os.environ)


@asynccontextmanager
async def open_handler() -> AsyncIterator[Handler]:
    """Open the store; it is warm once it has answered."""
    async with aclosing(open_store(settings.feature_store_url)) as store:
        population = await store.population()
        await store.read(["nobody"], history=1)
        yield ExtractFeatures(store, population=population, history_limit=settings.history_limit)


service = Service("extract-features", open_handler, settings=settings.serving)
handle = as_function(service)
