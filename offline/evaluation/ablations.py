"""Ablations: the same training with one part of the model removed or changed, to measure the value of the part."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from offline.training import ModelSettings

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


def vary(settings: ModelSettings) -> dict[str, ModelSettings]:
    """Return variants of *settings* by name; plain iALS is the model of Rendle et al. 2022."""
    variants = {name: replace(settings, als=replace(settings.als, **changes)) for name, changes in _ALS.items()}
    return {**variants, "without a prior": replace(settings, prior_strength=0.0)}
