"""
Refresh a model: fit its sources to newer interactions with the settings that it has.

A refresh chooses nothing and starts the factors from the vectors of the earlier model, which then need one epoch
instead of eight. Items that arrived since the last training get a vector of their interactions and attributes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from offline.training import ModelSettings, train
from recrank.artefact import Artefact, ArtefactError, Item, Manifest
from recrank.reranking import FACTS
from recrank.trees import TreeRanker
from recsys.declaration.types import Declaration
from recsys.records import UserRecord


def refresh(
    records: Sequence[UserRecord],
    artefact: Artefact,
    *,
    items: Mapping[str, Item],
    shown: Mapping[str, Item] | None = None,
    declaration: Declaration | None = None,
    folder: Path,
    dataset: str,
    facts: Mapping[str, Any],
) -> Manifest:
    """
    Write to *folder* a model of *records* with the settings of *artefact*.

    Raises:
        ArtefactError: the manifest of *artefact* does not hold its settings.
    """
    training = artefact.manifest.training
    try:
        settings = msgspec.convert({name: training[name] for name in ModelSettings.__dataclass_fields__}, ModelSettings)
    except (KeyError, msgspec.ValidationError) as error:
        raise ArtefactError(
            f"model {artefact.manifest.version}: its manifest does not hold its settings: {error}; train without "
            "--refresh"
        ) from error
    kept: dict[str, Any] = {
        name: training[name] for name in ("choice", "search", "min_weight", FACTS) if name in training
    }
    vectors = artefact.arrays["item_factors"]
    return train(
        records,
        items=items,
        shown=shown,
        declaration=declaration,
        folder=folder,
        dataset=dataset,
        settings=settings,
        start={item.item_id: vectors[row] for row, item in enumerate(artefact.items)},
        facts={**kept, **facts, "refreshed": artefact.manifest.version},
        metrics=artefact.manifest.metrics,
        ranker=TreeRanker.read(artefact.arrays, training.get(FACTS, {})),
    )
