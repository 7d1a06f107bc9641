"""Decode, read, compute, encode."""

from datetime import UTC, datetime

import msgspec

from recsys.contracts import wire
from recsys.contracts.problems import DependencyError
from recsys.contracts.wire import BatchAnswer, Features, FeaturesAnswer
from recsys.features import compute_features
from recsys.serving.call import Call, Reply
from recsys.stores.port import FeatureStore, StoreError, UserRecord


class ExtractFeatures:
    """
    Answers who a user is: four features and the recent history, newest first.

    Args:
        store: Where users are kept.
        population: What to assume of users it does not know.
        history_limit: How many items of a history are handed on, the newest.
    """

    def __init__(self, store: FeatureStore, *, population: Features, history_limit: int) -> None:
        self._store = store
        self._population = population
        self._history_limit = history_limit

    async def __call__(self, call: Call) -> Reply:
        """Answer for one user, or for several with one round trip to the store."""
        batch = wire.is_batch(call.body, "user_ids")
        if batch:
            user_ids = wire.features_batch.decode(call.body).user_ids
        else:
            user_ids = [wire.features_request.decode(call.body).user_id]
        answers = await self._answer(user_ids, call)
        return Reply(wire.encode(BatchAnswer([msgspec.Raw(answer) for answer in answers])) if batch else answers[0])

    async def _answer(self, user_ids: list[str], call: Call) -> list[bytes]:
        call.receipt.mark("decode")
        try:
            records = await self._store.read(user_ids, history=self._history_limit)
        except StoreError as error:
            raise DependencyError("the feature store does not answer", retry_after_s=1.0) from error
        call.receipt.mark("store")
        pairs = zip(user_ids, records, strict=True)
        return [wire.encode(describe(user_id, record, population=self._population)) for user_id, record in pairs]


def describe(user_id: str, record: UserRecord | None, *, population: Features) -> FeaturesAnswer:
    """Return the answer for a user: from *record*, or for one nobody knows from the *population*."""
    if record is None:
        return FeaturesAnswer(user_id, population, [], None, cold_start=True)
    return FeaturesAnswer(
        user_id,
        compute_features(record),
        [item.item_id for item in record.history],
        None if record.as_of_us is None else _timestamp(record.as_of_us),
    )


def _timestamp(time_us: int) -> str:
    """Return microseconds since the epoch as RFC 3339 text in UTC."""
    seconds, microseconds = divmod(time_us, 1_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds, tzinfo=None)
    return moment.isoformat() + "Z"
