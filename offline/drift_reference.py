"""Write into a manifest how its model's features and scores are distributed, so that drift can be measured."""

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec

from offline.queries import query_of
from recrank.artefact import Manifest, read_artefact, write_manifest
from recrank.model import RankingModel
from recrank.reference import PLACE, Buckets, make_buckets, measure
from recsys.records import UserRecord

USERS = 1000
_BATCH = 64


def note_reference(folder: Path, records: Sequence[UserRecord]) -> Manifest:
    """
    Add the distributions of the artefact in *folder* to its manifest; return the manifest. The version stays.

    Users with more interactions count more often, because they ask more often.

    Cost: reading the artefact, and ranking for at most `USERS` users.
    """
    artefact = read_artefact(folder)
    manifest = msgspec.structs.replace(artefact.manifest, reference=find_reference(RankingModel(artefact), records))
    write_manifest(folder, manifest)
    return manifest


def find_reference(model: RankingModel, records: Sequence[UserRecord]) -> dict[str, Buckets] | None:
    """Return the distribution of each measure over users of *records*; None if no user has a history."""
    histories = [len(record.history) for record in records]
    if not any(histories):
        return None
    # Training users are drawn with a fixed seed, so equal trainings write equal manifests.
    drawn = random.Random(0).choices(records, histories, k=min(USERS, len(records)))  # noqa: S311 - no secret
    queries = [query_of(record, PLACE) for record in drawn]
    values: dict[str, list[float]] = {}
    for start in range(0, len(queries), _BATCH):
        batch = queries[start : start + _BATCH]
        for query, ranking in zip(batch, model.rank(batch), strict=True):
            for name, value in measure(query.features, ranking.scores).items():
                values.setdefault(name, []).append(value)
    return {name: make_buckets(each) for name, each in values.items()}
