"""The handler: decodes a request, reads users from the store, computes their features, and encodes the answer."""

import asyncio
import time
from datetime import datetime, timedelta
from functools import partial

import msgspec
from msgspec import UNSET

from chassis.call import Call, Reply
from chassis.server.events import EventRoute, EventRouter, EventRoutes, data_as, make_reply
from chassis.wire.cloudevents import CloudEvent, is_event
from functions.extract_features.exposures import Exposures
from functions.extract_features.ingest import Ingest, read_erasure, read_interaction
from functions.extract_features.item_changes import ItemChanges
from functions.extract_features.user_updates import read_update
from recstore.catalogue.entries import Catalogue
from recstore.port import EventOutcome, FeatureStore
from recsys.contracts import events, wire
from recsys.contracts.wire import BatchAnswer, Features, FeaturesAnswer
from recsys.declaration.reader import default_declaration
from recsys.declaration.types import Declaration
from recsys.features import compute_features
from recsys.records import Interaction, KnownUser, UserUpdate

SOURCE = "/functions/extract-features"

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC; a time zone would appear in the text


class ExtractFeatures:
    """
    Answers with a user's four features and recent history, newest first.

    Args:
        store: The feature store.
        population: The defaults for unknown users.
        history_limit: The largest number of items of a history in an answer; the newest are kept.
        declaration: The declared kinds of events and attributes; the demo's by default.
        reply_to_interactions: Answer an interaction event with the user's new features.
        simulated_latency_s: Delay of each request, to show how the pipeline scales with slower functions.
        catalogue: Takes events about items; without one, they are refused.
        exposures: Takes events about answers; without them, these events are refused.

    Attributes:
        ingest: Counts interactions and takes over updates of users.
        routes: The events that it handles.
    """

    def __init__(
        self,
        store: FeatureStore,
        *,
        population: Features,
        history_limit: int,
        declaration: Declaration | None = None,
        reply_to_interactions: bool = False,
        simulated_latency_s: float = 0.0,
        catalogue: Catalogue | None = None,
        exposures: Exposures | None = None,
    ) -> None:
        self._store = store
        self._population = population
        self._history_limit = history_limit
        self._reply_to_interactions = reply_to_interactions
        self._simulated_latency_s = simulated_latency_s
        self.ingest = Ingest(store, exposures)
        declared = declaration or default_declaration()
        read = partial(read_interaction, kinds=declared.events)
        self.routes: EventRoutes = {
            events.INTERACTION: EventRoute(self.ingest.counting(read), self._count),
            events.USER_UPDATED: EventRoute(
                self.ingest.counting(partial(read_update, attributes=declared.users.attributes)), self._update
            ),
            events.ERASED: EventRoute(self.ingest.counting(read_erasure), self._erase),
            events.REQUESTED: EventRoute(data_as(events.requested), self._extract),
            **(ItemChanges(catalogue, attributes=declared.items.attributes).routes() if catalogue else {}),
            **(exposures.routes(self.ingest.counting) if exposures else {}),
        }
        self._events = EventRouter(self.routes)

    def assume(self, population: Features) -> None:
        """Use *population* as the defaults for unknown users."""
        self._population = population

    async def __call__(self, call: Call) -> Reply:
        """Answer for one user, or for several with one round trip to the store; or accept events."""
        if self._simulated_latency_s:
            await asyncio.sleep(self._simulated_latency_s)
        if is_event(call.headers):
            return await self._events(call)
        batch = wire.is_batch(call.body, "user_ids")
        if batch:
            answers = await self._answer(wire.features_batch.decode(call.body).user_ids, call)
            return Reply(wire.encode(BatchAnswer([msgspec.Raw(answer) for answer in answers])))
        asked = wire.features_request.decode(call.body)
        if asked.include:
            return Reply(wire.encode(await self._show(asked.user_id)))
        (answer,) = await self._answer([asked.user_id], call)
        return Reply(answer)

    async def _count(self, interaction: Interaction, event: CloudEvent, call: Call) -> CloudEvent | None:
        """Count an `interaction.v1`, and reply with the user's new features if that is switched on."""
        outcome = await self.ingest.count(interaction, within_s=call.deadline.left_s())
        if not self._reply_to_interactions or outcome is EventOutcome.ERASED:
            return None
        (data,) = await self._answer([interaction.user_id], call)
        return make_reply(event, call, type_=events.UPDATED, source=SOURCE, subject=interaction.user_id, data=data)

    async def _update(self, update: UserUpdate, _event: CloudEvent, call: Call) -> None:
        """Store the attributes of a `user.updated.v1`."""
        await self.ingest.update(update, within_s=call.deadline.left_s())

    async def _erase(self, erasure: tuple[str, int], _event: CloudEvent, _call: Call) -> None:
        """Remove the user of a `user.erased.v1`."""
        user_id, at_us = erasure
        await self.ingest.erase(user_id, at_us=at_us)

    async def _extract(self, asked: events.RequestedData, event: CloudEvent, call: Call) -> CloudEvent:
        """Reply to `recommendation.requested.v1`, as the first step of a Sequence, with the input of rank_items."""
        (known,) = await self._read([asked.user_id])
        who = describe(asked.user_id, known, population=self._population)
        as_of = UNSET if who.as_of is None else datetime.fromisoformat(who.as_of)
        data = wire.encode(
            events.ExtractedData(
                asked.user_id,
                who.features,
                who.history,
                asked.top_k,
                asked.exclude,
                who.avoided or UNSET,
                as_of,
                who.attributes or UNSET,
            )
        )
        return make_reply(event, call, type_=events.EXTRACTED, source=SOURCE, subject=asked.user_id, data=data)

    async def _answer(self, user_ids: list[str], call: Call) -> list[bytes]:
        call.receipt.mark("decode")
        began = time.monotonic()
        found = await self._read(user_ids)
        call.receipt.mark("store")
        call.span.record("store", began=began, ended=time.monotonic())
        pairs = zip(user_ids, found, strict=True)
        return [wire.encode(describe(user_id, known, population=self._population)) for user_id, known in pairs]

    async def _show(self, user_id: str) -> FeaturesAnswer:
        """Return the answer for a user with the times of the history."""
        found = await self.ingest.store_calls.measured("read", self._store.record(user_id))
        known = found.known(history=self._history_limit) if found else None
        answer = describe(user_id, known, population=self._population)
        items = found.history[: self._history_limit] if found else []
        return msgspec.structs.replace(
            answer, times=[_timestamp(item.time_us) if item.time_us else None for item in items]
        )

    async def _read(self, user_ids: list[str]) -> list[KnownUser | None]:
        return await self.ingest.store_calls.measured("read", self._store.read(user_ids, history=self._history_limit))


def describe(user_id: str, known: KnownUser | None, *, population: Features) -> FeaturesAnswer:
    """Return the answer for a user: from the *known* record, or from the *population* for an unknown user."""
    if known is None:
        return FeaturesAnswer(user_id, population, [], None, cold_start=True)
    return FeaturesAnswer(
        user_id,
        compute_features(known),
        known.recent,
        None if known.as_of_us is None else _timestamp(known.as_of_us),
        avoided=known.avoided,
        attributes=known.user_attributes,
    )


def _timestamp(time_us: int) -> str:
    """Return microseconds since the epoch as RFC 3339 text in UTC."""
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat() + "Z"
