"""
A stage of the pipeline: one model, which classifies the concurrent requests of an instance in batches.

Both models run this file: the environment variable `COLUMN` selects the label to learn.
"""

import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import msgspec

from chassis.batching.batcher import Batcher
from chassis.batching.queue import BatchLimits
from chassis.call import Call, Handler, Reply
from chassis.environment import Reader
from chassis.server.asgi import as_function
from chassis.server.service import Service
from chassis.server.settings import ServingSettings
from examples.triage.messages import message
from examples.triage.words import Label, train

environment = Reader(os.environ)
column = environment.text("COLUMN")
settings = ServingSettings.read(environment, name=column, max_body_bytes=64 * 1024)
environment.finish()


@asynccontextmanager
async def open_handler() -> AsyncIterator[Handler]:
    """Train the model; yield the handler."""
    with ThreadPoolExecutor(1) as executor:
        batcher: Batcher[str, Label] = Batcher(train(column).classify, limits=BatchLimits(), executor=executor)
        service.exposition.add(batcher.instruments())

        async def classify(call: Call) -> Reply:
            text = message.decode(call.body).text
            label, facts = await batcher.submit(text, deadline=call.deadline.at)
            call.receipt.note("batch", str(facts.size))
            return Reply(msgspec.json.encode(label))

        yield classify


service = Service(column, open_handler, settings=settings)
handle = as_function(service)
