"""The OpenAPI documents of the three functions."""

from collections.abc import Mapping

import msgspec

from chassis.wire.openapi import Contract, describe
from recsys import __version__
from recsys.contracts import events, wire

CONTRACTS: Mapping[str, Contract] = {
    contract.name: contract
    for contract in (
        Contract(
            "recommend",
            "Recommends items to a user.",
            request=wire.RecommendRequest,
            answer=wire.Recommendations,
            batch_key="requests",
            batch_member=None,
            most=wire.MAX_BATCH,
            events=(events.REQUESTED,),
            headers=(("Prefer", "`handling=strict` asks for an error instead of a degraded answer."),),
            answer_headers=(
                ("Preference-Applied", "`handling=strict` if the caller preferred it."),
                ("Recsys-Exposure", "Identifies the answer in events, if it is reported; absent for a batch."),
            ),
        ),
        Contract(
            "extract_features",
            "Returns the features and the history of a user, and counts interactions.",
            request=wire.FeaturesRequest,
            answer=wire.FeaturesAnswer,
            batch_key="user_ids",
            batch_member=wire.UserId,
            most=wire.MAX_BATCH,
            events=(
                events.INTERACTION,
                events.USER_UPDATED,
                events.ERASED,
                events.ITEM_UPSERTED,
                events.ITEM_REMOVED,
                events.REQUESTED,
                events.SERVED,
                events.SERVED_GROUP,
            ),
        ),
        Contract(
            "rank_items",
            "Ranks items for the features and the history of a user.",
            request=wire.RankRequest,
            answer=wire.RankAnswer,
            batch_key="requests",
            batch_member=None,
            most=wire.MAX_BATCH,
            events=(events.EXTRACTED,),
        ),
    )
}


def document(name: str) -> bytes:
    """Return the OpenAPI document of the function *name* as JSON."""
    return msgspec.json.format(msgspec.json.encode(describe(CONTRACTS[name], version=__version__)))
