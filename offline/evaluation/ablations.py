"""
Ablations: the same training with one part of the model removed or changed, to measure the value of the part.

A source is removed or left alone by its weights. The other weights stay as they are, so a row shows what the source
adds to this blend. A declared feature is removed by taking it as missing everywhere. The trees of the ranker stay as they
are, too.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from offline.boosting import without_column
from offline.descriptions import AttributeSettings
from offline.training import BlendSettings, ModelSettings
from recrank.mixture import FIXED_SOURCES, POPULARITY
from recrank.trees import TreeRanker
from recsys.declaration.features import Feature

_ALS: Mapping[str, Mapping[str, Any]] = {
    "plain iALS": {"weight_exponent": 0.0, "popularity_exponent": 0.0, "frequency_exponent": 1.0},
    "without attention weights": {"weight_exponent": 0.0},
    "without popularity-aware negatives": {"popularity_exponent": 0.0},
    "without frequency-scaled ridge": {"frequency_exponent": 0.0},
    "other initial vectors": {"seed": 1},
    "4 epochs": {"epochs": 4},
    "32 factors": {"factors": 32},
    "64 factors": {"factors": 64},
    "256 factors": {"factors": 256},
}
_FIXED_NAMES = ("factors", "popularity", "recent popularity")


def vary(settings: ModelSettings) -> dict[str, ModelSettings]:
    """Return variants of *settings* by name; plain iALS is the model of Rendle et al. 2022."""
    variants = {name: replace(settings, als=replace(settings.als, **changes)) for name, changes in _ALS.items()}
    variants["without a prior"] = replace(settings, prior_strength=0.0)
    if settings.attributes.strength:
        variants["without attributes of rare items"] = replace(
            settings, attributes=AttributeSettings(0.0, settings.attributes.trust)
        )
    if settings.blend:
        variants |= {name: replace(settings, blend=blend) for name, blend in _vary_sources(settings.blend).items()}
    return variants


def vary_features(ranker: TreeRanker, features: Mapping[str, Feature]) -> dict[str, TreeRanker]:
    """Return *ranker* without each of the declared *features*."""
    return {
        f"without feature {name}": without_column(ranker, name, feature.missing) for name, feature in features.items()
    }


def _vary_sources(blend: BlendSettings) -> dict[str, BlendSettings]:
    """Return *blend* without each of its sources, and with each of them alone."""
    names = (*_FIXED_NAMES, *(f"neighbours {number}" for number in range(1, len(blend.views) + 1)))
    rows = (*blend.weights, *([blend.away] if blend.away else []))
    used = [source for source in range(FIXED_SOURCES + len(blend.views)) if any(row[source] for row in rows)]
    found = {}
    for source in used:
        found[f"without {names[source]}"] = _weigh(blend, removed={source})
        found[f"{names[source]} alone"] = _weigh(blend, removed=set(used) - {source})
    return found


def _weigh(blend: BlendSettings, *, removed: set[int]) -> BlendSettings:
    """Return *blend* with no weight for the sources *removed*."""

    def weigh(row: tuple[float, ...]) -> tuple[float, ...]:
        left = tuple(0.0 if source in removed else weight for source, weight in enumerate(row))
        # Each row needs a weight; for example, neighbours alone cannot rank for users without a history.
        return left if any(left) else tuple(float(source == POPULARITY) for source in range(len(row)))

    return replace(blend, weights=tuple(map(weigh, blend.weights)), away=weigh(blend.away) if blend.away else ())
