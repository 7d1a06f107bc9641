"""The request that a model gets when recommend is asked for the user of a record."""

from recrank.model import Query
from recsys.contracts.wire import MAX_HISTORY
from recsys.features import compute_features
from recsys.records import UserRecord


def query_of(record: UserRecord, top_k: int, *, at_us: int | None = None) -> Query:
    """Return the request for *top_k* items; *at_us* is the time to recommend for, None for that of the training data."""
    known = record.known(history=MAX_HISTORY)
    return Query(
        compute_features(known),
        known.recent,
        top_k,
        known.avoided,
        as_of_us=known.as_of_us,
        at_us=at_us,
        user_attributes=known.user_attributes,
    )
