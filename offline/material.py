"""The material of a training: what it learns from, and the trainings on it as its declaration says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from offline.decision import decide
from offline.drift_reference import note_reference
from offline.learnable import learnable
from offline.refresh import refresh
from offline.search import search
from offline.training import ModelSettings, train
from recrank.artefact import Artefact, Item, Manifest
from recrank.trees import TreeRanker
from recsys.declaration.types import Declaration
from recsys.records import UserRecord


@dataclass(frozen=True)
class Recipe:
    """
    The settings of a model, and how they were chosen.

    Attributes:
        settings: The settings to train with.
        facts: The trials of the choice, for a manifest.
        metrics: Metrics measured by a search; None without one.
        lines: The trials of the choice, for the log.
        ranker: The learned ranker; None if the blend ranks.
    """

    settings: ModelSettings
    facts: Mapping[str, Any]
    metrics: Mapping[str, float] | None
    lines: Sequence[str]
    ranker: TreeRanker | None = None


@dataclass(frozen=True)
class Material:
    """
    The data to train on.

    Attributes:
        records: Users with their histories.
        items: Titles and attributes, by item id.
        dataset: Name of the data, for the manifest.
        declaration: Tells the attributes and the sources to learn from.
        facts: Facts about the data, for the manifest.
    """

    records: Sequence[UserRecord]
    items: Mapping[str, Item]
    dataset: str
    declaration: Declaration
    facts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def _learnable(self) -> dict[str, Item]:
        return learnable(self.items, self.declaration)

    def choose(
        self, *, searches: bool = False, ahead: bool = True, tell: Callable[[str], None] = lambda _: None
    ) -> Recipe:
        """
        Choose the sources and their weights.

        Args:
            searches: Search hyper-parameters first, even if the declaration does not say so.
            ahead: As of `decide`.
            tell: As of `decide`.
        """
        training = self.declaration.training
        with _single_threaded():
            found = search(self.records) if searches or training.search else None
            chosen = decide(
                self.records,
                items=self._learnable,
                als=found.settings.als if found else None,
                ahead=ahead,
                neighbours="neighbours" in training.sources,
                declaration=self.declaration,
                shown=self.items,
                tell=tell,
            )
        return Recipe(
            chosen.settings,
            facts={**chosen.facts(), **({"search": found.facts()} if found else {})},
            metrics=found.metrics() if found else None,
            lines=list(chosen.describe()),
            ranker=chosen.ranker,
        )

    def train(self, recipe: Recipe, folder: Path) -> Manifest:
        """Train a model by *recipe*, and write it to *folder*."""
        with _single_threaded():
            train(
                self.records,
                items=self._learnable,
                shown=self.items,
                declaration=self.declaration.without_own_models(),
                folder=folder,
                dataset=self.dataset,
                settings=recipe.settings,
                facts={**self.facts, **recipe.facts},
                metrics=recipe.metrics,
                ranker=recipe.ranker,
                progress=lambda epochs: tqdm(epochs, desc="training", unit="epoch", disable=None),
            )
            return note_reference(folder, self.records)

    def refresh(self, artefact: Artefact, folder: Path) -> Manifest:
        """
        Train a model with the settings of *artefact*, and write it to *folder*.

        Raises:
            ArtefactError: the manifest of *artefact* does not hold its settings.
        """
        with _single_threaded():
            refresh(
                self.records,
                artefact,
                items=self._learnable,
                shown=self.items,
                declaration=self.declaration.without_own_models(),
                folder=folder,
                dataset=self.dataset,
                facts=self.facts,
            )
            return note_reference(folder, self.records)


def _single_threaded() -> threadpool_limits:
    """
    Let BLAS compute in one thread.

    The matrices of a training are small. More threads would spend more time waiting for each other than computing.
    """
    return threadpool_limits(limits=1, user_api="blas")
