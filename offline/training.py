"""Train a model on user records and write its artefact."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline.als import AlsModel, AlsSettings, suggest_settings, train_als
from offline.descriptions import Arrays, AttributeMap, AttributeSettings, describe, find_new, trust_new
from offline.dominance import largest_share
from offline.matrix import Ratings, fingerprint, list_columns, make_ratings
from offline.pairs import Pairs, View, count_pairs
from offline.popularity import measure_popularity
from offline.prior import fit_prior
from offline.recency import Timeline
from recrank.artefact import Item, Manifest, write_artefact
from recrank.changes import ATTRIBUTE_VALUES, ATTRIBUTE_VECTORS, shared_values
from recrank.prior import FeaturePrior
from recrank.trees import TreeRanker
from recsys.declaration.types import Declaration
from recsys.features import compute_features
from recsys.records import UserRecord
from topk.item_table import F32

MODEL_NAME = "ials"
LEFT_OUT = "left_out"
"""The fact that counts the known items that a model leaves out."""


@dataclass(frozen=True)
class BlendSettings:
    """
    The sources in addition to the factors, and the weights of all sources.

    Attributes:
        ordered: Whether histories are in the order of time.
        views: One neighbour source per view.
        lengths: Rising from 0; row l of *weights* serves histories of at least lengths[l] items, up to the next length.
        weights: For each length, the weights of the factors, of popularity, of recent popularity and of each view.
        recent: The newest share of all interactions, within which one counts at least half in recent popularity.
        away: The weights for users who were away; empty if they have those of the others.
    """

    ordered: bool
    views: tuple[View, ...]
    lengths: tuple[int, ...]
    weights: tuple[tuple[float, ...], ...]
    recent: float = 0.1
    away: tuple[float, ...] = ()


@dataclass(frozen=True)
class ModelSettings:
    """
    All settings of a training.

    Attributes:
        als: Settings of the factors.
        prior_strength: Length of history at which the features' prior counts half. The results of 0.3 to 1 differ only
            by noise.
        half_life: Places back in the history at which an item counts half; with 0, all items count the same.
        attributes: How much the attributes of items count.
        blend: Further sources; None if the factors rank alone.
    """

    als: AlsSettings
    prior_strength: float = 0.5
    half_life: float = 0.0
    attributes: AttributeSettings = field(default_factory=AttributeSettings)
    blend: BlendSettings | None = None


def suggest(ratings: Ratings) -> ModelSettings:
    """Return settings that suit data of this size."""
    users, items = ratings.weights.shape
    return ModelSettings(suggest_settings(users, items, ratings.weights.nnz))


def train(
    records: Sequence[UserRecord],
    *,
    items: Mapping[str, Item],
    folder: Path,
    dataset: str,
    shown: Mapping[str, Item] | None = None,
    declaration: Declaration | None = None,
    settings: ModelSettings | None = None,
    start: Mapping[str, F32] | None = None,
    facts: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    ranker: TreeRanker | None = None,
    progress: Callable[[range], Iterable[int]] = iter,
) -> Manifest:
    """
    Train on *records* and write the artefact to *folder*.

    Equal records and settings give an artefact with an equal version on machines of the same kind.

    Args:
        records: Users with their histories.
        items: Known titles and attributes, by item id. Items without interactions join the model if they share an
            attribute with items that have some.
        folder: New or empty folder.
        dataset: Name of the data, for the manifest.
        shown: The items as the artefact shows and filters them; by default, as *items*.
        declaration: The declaration of the data, for the manifest.
        settings: Settings; None suggests them from the size of the data.
        start: Item vectors of an earlier model with the same settings, by item id, to start from (`train_als`).
        facts: Further facts about the training, for the manifest.
        metrics: Metrics measured before the training, for the manifest.
        ranker: The learned ranker; None lets the blend rank. *facts* must have its facts.
        progress: Iterates over the epochs, for example with a progress bar.
    """
    ratings = make_ratings(records)
    settings = settings or suggest(ratings)
    known = [items.get(item_id, Item(item_id)) for item_id in ratings.item_ids]
    new = find_new(items.values(), known)
    arrays = fit_arrays(records, ratings, settings, items=items, new=new, start=start, progress=progress, keep_map=True)
    arrays |= measure_popularity(records, [item.item_id for item in (*known, *new)], declaration)
    arrays |= ranker.arrays() if ranker else {}
    placed = {ATTRIBUTE_VALUES: shared_values(known)} if ATTRIBUTE_VECTORS in arrays else {}
    left_out = len(items.keys() - {item.item_id for item in (*known, *new)})
    return write_artefact(
        folder,
        name=MODEL_NAME,
        arrays=arrays,
        items=[(shown or {}).get(item.item_id, item) for item in (*known, *new)],
        training={
            "dataset": dataset,
            "fingerprint": fingerprint(records),
            "users": len(records),
            "items": len(known),
            "new_items": len(new),
            "ties": int(ratings.weights.nnz),
            "largest_share": round(largest_share(records), 4),
            "until_us": max((item.time_us for record in records for item in record.history), default=0),
            **asdict(settings),
            **placed,
            **({LEFT_OUT: left_out} if left_out else {}),
            **(facts or {}),
        },
        metrics=metrics or {},
        declaration=declaration,
    )


def fit_arrays(
    records: Sequence[UserRecord],
    ratings: Ratings,
    settings: ModelSettings,
    *,
    items: Mapping[str, Item] | None = None,
    new: Sequence[Item] = (),
    start: Mapping[str, F32] | None = None,
    progress: Callable[[range], Iterable[int]] = iter,
    keep_map: bool = False,
) -> Arrays:
    """
    Fit every source to *records* and return the artefact's arrays.

    Args:
        records: Users with their histories.
        ratings: The matrix of *records*.
        settings: Settings.
        items: Attributes by item id; None for items without attributes.
        new: Items without interactions; their rows follow those of *ratings*.
        start: See `train`.
        progress: Iterates over the epochs.
        keep_map: Add the map from attributes to vectors, by which serving places items that arrive later.
    """
    vectors = None
    if start is not None:
        unknown = np.zeros(settings.als.factors, np.float32)
        vectors = np.stack([start.get(item_id, unknown) for item_id in ratings.item_ids])
    model = train_als(ratings.weights, settings.als, start=vectors, progress=progress)
    prior = fit_prior([compute_features(record) for record in records], model.users, metric=model.gram + model.ridge)
    arrays = make_arrays(model, prior, settings)
    if settings.blend is not None:
        histories = list_columns(records, ratings)
        together = any(view.together for view in settings.blend.views)
        pairs = count_pairs(histories, items=len(ratings.item_ids), ordered=settings.blend.ordered, together=together)
        arrays |= make_blend_arrays(pairs, settings.blend, timeline=Timeline.of(records, ratings))
    return add_attributes(arrays, ratings, settings.attributes, items=items or {}, new=new, keep_map=keep_map)


def add_attributes(
    arrays: Arrays,
    ratings: Ratings,
    settings: AttributeSettings,
    *,
    items: Mapping[str, Item],
    new: Sequence[Item],
    keep_map: bool = False,
) -> Arrays:
    """Add the predictions from attributes to the *arrays* of the items of *ratings*, and rows for the *new* items."""
    if not (new or settings.strength or keep_map):
        return arrays
    known = [items.get(item_id, Item(item_id)) for item_id in ratings.item_ids]
    learned = AttributeMap.of(known, new)
    if learned is None:
        return arrays
    kept = {}
    if keep_map:
        kept = {ATTRIBUTE_VECTORS: (settings.trust * learned.weigh(arrays["item_factors"])).astype(np.float32)}
    if new or settings.strength:
        counts = np.bincount(ratings.weights.indices, minlength=len(known))
        arrays = trust_new(describe(arrays, counts, learned, strength=settings.strength), len(known), settings.trust)
    return {**arrays, **kept}


def make_arrays(model: AlsModel, prior: FeaturePrior, settings: ModelSettings) -> Arrays:
    """Return the arrays of a trained model for the artefact; `RankingModel` reads them."""
    users = max(int(model.counts.max()), 1)
    return {
        "item_factors": model.items,
        "item_popularity": (model.counts / users).astype(np.float32),
        "fold_in_diagonal": (model.gram + np.float32(model.ridge)).astype(np.float32),
        "fold_in": np.array([settings.prior_strength, settings.half_life], np.float32),
        "prior_weights": prior.weights,
        "prior_base": prior.base,
        **{f"prior_knots_{axis}": np.array(knots, np.float32) for axis, knots in enumerate(prior.knots)},
    }


def make_blend_arrays(
    pairs: Pairs, settings: BlendSettings, *, timeline: Timeline, only: NDArray[np.bool_] | None = None
) -> Arrays:
    """Return the arrays of recent popularity, the neighbour sources and the blend; *only* as in `Pairs.neighbours`."""
    arrays: Arrays = {
        "item_recent_popularity": timeline.popularity(settings.recent),
        "blend_newest_us": np.array([timeline.newest_us], np.int64),
        "blend_lengths": np.array(settings.lengths, np.int64),
        "blend_weights": np.array(settings.weights, np.float32),
        "neighbours_half_lives": np.array([view.half_life for view in settings.views], np.float64),
    }
    if settings.away:
        arrays["blend_away"] = np.array(settings.away, np.float32)
    for source, view in enumerate(settings.views):
        found = pairs.neighbours(view, only=only)
        for part, array in (("ends", found.ends), ("items", found.items), ("weights", found.weights)):
            arrays[f"neighbours_{source}_{part}"] = array
    return arrays
