"""The request that a model gets when recommend is asked for the user of a record."""

from recrank.model import Query
from recsys.contracts.wire import MAX_HISTORY
from recsys.features import compute_features
from recsys.records import UserRecord


def query_of(record: UserRecord, top_k: int, *, history: int = MAX_HISTORY, at_us: int | None = None) -> Query:
    """Return the request, with at most *history* known and avoided items; *at_us* is the time to recommend for."""
    known = record.known(history=history)
    return Query(
        compute_features(known),
        known.recent,
        top_k,
        known.avoided,
        as_of_us=known.as_of_us,
        at_us=at_us,
        user_attributes=known.user_attributes,
    )
