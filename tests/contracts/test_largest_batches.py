"""The largest valid batches."""

import json
from typing import Any

import pytest

from chassis.wire.decoder import Decoder
from chassis.wire.json_text import LONG_BYTES
from chassis.wire.problems import ServingError
from recsys.contracts import wire

CONDITIONS = [{"attribute": f"attribute {number}", "any_of": ["[a]", '{"b"}']} for number in range(8)]
OPTIONS = {"top_k": 100, "exclude": ["a"], "filter": CONDITIONS, "diversity": 0.5}
FEATURES = {"age_group": "25-34", "avg_session_duration": 1.0, "total_purchases": 1, "engagement_score": 0.5}


@pytest.mark.parametrize(
    ("request_", "single"),
    [
        ({"user_id": "a", **OPTIONS}, wire.recommend_request),
        ({"features": FEATURES, "history": ["a"], **OPTIONS}, wire.rank_request),
    ],
    ids=["recommend", "rank"],
)
def test_a_full_batch_of_requests_with_all_fields_is_accepted(request_: dict[str, Any], single: Decoder[Any]) -> None:
    """A batch may have the most requests, each with the most conditions."""
    body = json.dumps({"requests": [request_] * wire.MAX_BATCH}).encode()
    assert len(body) > LONG_BYTES
    decoded = single.decode_each(wire.split_batch(body) or ())
    assert len(decoded) == wire.MAX_BATCH
    assert not any(isinstance(each, ServingError) for each in decoded)
