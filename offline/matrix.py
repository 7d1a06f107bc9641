"""Convert user records into the matrix that a model is trained on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from recsys.records import UserRecord


@dataclass(frozen=True)
class Ratings:
    """
    The weights of all pairs of a user and an item of the user's history.

    Attributes:
        user_ids: (U,) row names.
        item_ids: (I,) column names, shorter ids first, so item_2 precedes item_10.
        weights: (U, I) sparse float32; only pairs with interactions are stored, and their weights are above 0.
    """

    user_ids: list[str]
    item_ids: list[str]
    weights: csr_array


def make_ratings(records: Sequence[UserRecord]) -> Ratings:
    """Return the matrix of *records*; its rows have the order of the records."""
    item_ids = sorted({item.item_id for record in records for item in record.history}, key=lambda id_: (len(id_), id_))
    columns = {item_id: column for column, item_id in enumerate(item_ids)}
    lengths = [len(record.history) for record in records]
    indices: NDArray[np.int32] = np.fromiter(
        (columns[item.item_id] for record in records for item in record.history), np.int32, sum(lengths)
    )
    weights: NDArray[np.float32] = np.fromiter(
        (item.weight for record in records for item in record.history), np.float32, sum(lengths)
    )
    matrix = csr_array(
        (weights, indices, np.concatenate(([0], np.cumsum(lengths)))), shape=(len(records), len(item_ids))
    )
    matrix.sort_indices()
    return Ratings([record.user_id for record in records], item_ids, matrix)


def list_columns(records: Sequence[UserRecord], ratings: Ratings) -> list[NDArray[np.int32]]:
    """Return every record's history as columns of *ratings*, oldest first."""
    columns = {item_id: column for column, item_id in enumerate(ratings.item_ids)}
    return [np.array([columns[item.item_id] for item in reversed(record.history)], np.int32) for record in records]


def fingerprint(records: Sequence[UserRecord]) -> str:
    """Return a SHA-256 over the content of *records*. Equal data has an equal fingerprint."""
    digest = hashlib.sha256()
    encoder = msgspec.json.Encoder()
    for record in records:
        digest.update(encoder.encode(record))
    return digest.hexdigest()
