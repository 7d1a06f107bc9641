"""The entry point of extract_features: joins configuration and handler."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.server.asgi import as_function
from chassis.server.service import Service
from chassis.telemetry.exposition import Exposition
from functions.extract_features.handler import ExtractFeatures
from functions.extract_features.settings import Settings
from functions.extract_features.startup import opened_handler
from recsys.contracts.pages import pages_of

settings = Settings.from_env(os.environ)


@asynccontextmanager
async def open_handler(exposition: Exposition | None = None) -> AsyncIterator[ExtractFeatures]:
    """Open the handler, and add its metrics to *exposition*, or to the service's."""
    async with opened_handler(settings, exposition=exposition or service.exposition) as handler:
        yield handler


service = Service("extract-features", open_handler, settings=settings.serving, pages=pages_of("extract_features"))
handle = as_function(service)
