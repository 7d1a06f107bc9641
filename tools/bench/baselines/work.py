"""The work of the pipeline without serving code; both baselines call it."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from recrank.artefact import read_artefact
from recrank.model import Query, RankingModel
from recrank.own_models import open_model
from recstore.port import FeatureStore
from recstore.urls import open_store
from recsys.contracts.wire import Features
from recsys.features import compute_features


@cache
def store() -> FeatureStore:
    """Return the process's feature store."""
    return open_store(os.environ["FEATURE_STORE_URL"])


@cache
def model() -> RankingModel:
    """Return the process's model."""
    return open_model(read_artefact(Path(os.environ["MODEL_PATH"])))


async def extract(user_id: str) -> tuple[dict[str, Any], list[str]]:
    """Return a user's features and history."""
    (record,) = await store().read([user_id], history=1000)
    if record is None:
        return msgspec.to_builtins(await store().population()), []
    return msgspec.to_builtins(compute_features(record)), record.recent


def rank(features: dict[str, Any], history: list[str], top_k: int) -> list[dict[str, Any]]:
    """Return the best items in the format of the API."""
    (ranking,) = model().rank([Query(Features(**features), history, top_k)])
    pairs = zip(ranking.item_ids, ranking.scores, strict=True)
    return [{"item_id": item_id, "score": round(score, 3) + 0.0} for item_id, score in pairs]
