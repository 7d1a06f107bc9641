"""The entry point of recommend: joins configuration and handler."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.auth.tokens import TokenFile
from chassis.call import Handler
from chassis.server.asgi import as_function
from chassis.server.service import Service
from functions.recommend.settings import Settings
from functions.recommend.startup import opened_handler
from recsys.contracts.pages import pages_of

settings = Settings.from_env(os.environ)
service_tokens = TokenFile(settings.service_token_file).check() if settings.service_token_file else None


@asynccontextmanager
async def open_handler() -> AsyncIterator[Handler]:
    """Open the handler, and add its metrics to the service's."""
    async with opened_handler(settings, tokens=service_tokens, exposition=service.exposition) as handler:
        yield handler


service = Service("recommend", open_handler, settings=settings.serving, pages=pages_of("recommend"), cors=settings.cors)
handle = as_function(service)
