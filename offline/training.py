"""From user records to a model artefact."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from offline.als import F32, AlsSettings, factorise
from offline.matrix import Ratings, fingerprint, make_ratings
from recsys.features import compute_features
from recsys.ranking.artefact import Item, Manifest, write_artefact
from recsys.ranking.encoding import encode_features
from recsys.stores.port import UserRecord

MODEL_NAME = "ials"
_PRIOR_REG = 10.0


def train(
    records: Sequence[UserRecord], *, items: Mapping[str, Item], folder: Path, dataset: str, settings: AlsSettings
) -> Manifest:
    """
    Train on *records* and write the artefact to *folder*; *items* adds titles and categories.

    Deterministic: equal records and settings give an artefact with an equal version.
    """
    ratings = make_ratings(records)
    user_factors, item_factors = factorise(ratings.weights, settings)
    encoded = encode_features([compute_features(record) for record in records])
    return write_artefact(
        folder,
        name=MODEL_NAME,
        arrays={
            "item_factors": item_factors,
            "item_popularity": popularity(ratings),
            "feature_prior": fit_prior(encoded, user_factors),
            "fold_in": np.array([settings.alpha, settings.reg], np.float32),
        },
        items=[items.get(item_id, Item(item_id)) for item_id in ratings.item_ids],
        training={
            "dataset": dataset,
            "fingerprint": fingerprint(records),
            "users": len(records),
            "items": len(ratings.item_ids),
            "ties": int(ratings.weights.nnz),
            **asdict(settings),
        },
        metrics={},
    )


def popularity(ratings: Ratings) -> F32:
    """Return each item's share of the audience of the most popular one, (I,) float32 in 0..1."""
    users = np.bincount(ratings.weights.indices, minlength=len(ratings.item_ids))
    shares: F32 = (users / users.max()).astype(np.float32)
    return shares


def fit_prior(encoded: F32, user_factors: F32) -> F32:
    """Return W (F, D), the ridge regression from *encoded* features (U, F) to *user_factors* (U, D)."""
    gram = encoded.T @ encoded + np.float32(_PRIOR_REG) * np.eye(encoded.shape[1], dtype=np.float32)
    prior: F32 = np.linalg.solve(gram, encoded.T @ user_factors).astype(np.float32)
    return prior
