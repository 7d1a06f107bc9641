"""recommend: configuration -> hop clients -> handler."""

import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from functions.recommend.handler import Recommend
from functions.recommend.settings import Settings
from recsys.serving.asgi import as_function
from recsys.serving.call import Handler
from recsys.serving.client import HopClient
from recsys.serving.service import Service
from recsys.serving.transport import HttptoolsTransport

settings = Settings.from_env(os.environ)


@asynccontextmanager
async def open_handler() -> AsyncIterator[Handler]:
    """Open the pool both hops share."""
    async with aclosing(HttptoolsTransport(max_connections=settings.max_connections)) as transport:
        yield Recommend(
            features=HopClient("extract_features", settings.extract_features_url, transport=transport),
            ranking=HopClient("rank_items", settings.rank_items_url, transport=transport),
        )


service = Service("recommend", open_handler, settings=settings.serving)
handle = as_function(service)
