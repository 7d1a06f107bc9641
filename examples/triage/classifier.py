"""
A stage of the pipeline: one model, which classifies the concurrent requests of an instance in batches.

Both models run this file: the environment variable `COLUMN` selects the label to learn.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from chassis import Batcher, Call, Handler, Reader, Reply, Service, ServingSettings, as_function
from examples.triage.messages import message
from examples.triage.words import Label, train

environment = Reader()
column = environment.text("COLUMN")
settings = ServingSettings.read(environment, name=column, max_body_bytes=64 * 1024)
environment.finish()


@asynccontextmanager
async def open_handler() -> AsyncIterator[Handler]:
    """Train the model; yield the handler."""
    batcher: Batcher[str, Label] = Batcher(train(column).classify)
    service.exposition.add(batcher.instruments())

    async def classify(call: Call) -> Reply:
        text = message.decode(call.body).text
        label, facts = await batcher.submit(text, deadline=call.deadline.at)
        call.receipt.note("batch", str(facts.size))
        return Reply(msgspec.json.encode(label))

    yield classify


service = Service(column, open_handler, settings=settings)
handle = as_function(service)
