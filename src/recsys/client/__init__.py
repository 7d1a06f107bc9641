"""
Call a pipeline from Python, blocking or with asyncio.

    with Client("http://127.0.0.1:8080") as pipeline:
        for item in pipeline.recommend("user_42", top_k=10).recommendations:
            print(item.item_id, item.score)

The errors of a call:

    CallError
     ├─ ProblemError       the pipeline refused or failed; has the fields of the problem document
     ├─ NoAnswerError      no connection, or no complete answer within the deadline
     └─ OtherServerError   the answer does not come from a pipeline: check the URL

Both clients try a call again within its time budget if the connection broke, or if a gateway answered 502 or 503. That
is safe: recommend only reads, and the broker's subscribers count an event once.

The package imports httpx and msgspec, and nothing of the functions or the model.
"""

from chassis.wire.problems import Fault
from recsys.client.asynchronous import AsyncClient
from recsys.client.blocking import Client
from recsys.client.errors import CallError, NoAnswerError, OtherServerError, ProblemError
from recsys.contracts.wire import Condition, RankedItem, Recommendations, RecommendRequest, SessionItem

__all__ = [
    "AsyncClient", "CallError", "Client", "Condition", "Fault", "NoAnswerError", "OtherServerError", "ProblemError", "RankedItem",
    "RecommendRequest", "Recommendations", "SessionItem",
]  # fmt: skip
