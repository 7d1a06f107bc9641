"""
The public stage: calls both models at the same time, and chooses the team for a message.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import msgspec

from chassis import (
    Call,
    Handler,
    HopClient,
    HttptoolsTransport,
    Reader,
    Reply,
    Service,
    ServingError,
    ServingSettings,
    as_function,
)
from examples.triage.messages import message
from examples.triage.teams import combine
from examples.triage.words import Label

# Share of the request's remaining time that the models get; the combiner needs the rest.
MODELS_SHARE = 0.8

environment = Reader()
urls = {name: environment.text(f"{name.upper()}_URL") for name in ("topic", "urgency")}
settings = ServingSettings.read(environment, name="triage", max_body_bytes=64 * 1024)
environment.finish()
label = msgspec.json.Decoder(Label).decode


@asynccontextmanager
async def open_handler() -> AsyncIterator[Handler]:
    """Create the clients of both models; yield the handler."""
    async with aclosing(HttptoolsTransport()) as transport:
        hops = {name: HopClient(name, url, transport=transport) for name, url in urls.items()}
        for hop in hops.values():
            service.exposition.add(hop.instruments())

        async def classify(name: str, call: Call) -> Label | None:
            within_s = call.deadline.left_s() * MODELS_SHARE
            try:
                return (await hops[name].send(call.body, call=call, within_s=within_s, decode=label)).value
            except ServingError:
                return None

        async def triage(call: Call) -> Reply:
            message.decode(call.body)
            topic, urgency = await asyncio.gather(classify("topic", call), classify("urgency", call))
            return Reply(msgspec.json.encode(combine(topic, urgency)))

        yield triage


service = Service("triage", open_handler, settings=settings)
handle = as_function(service)
