"""Let a ranker score the shortlists of a batch: compute the columns that it reads, and check them once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recrank.artefact import Arrays, Artefact, ArtefactError
from recrank.columns import built_in, make_columns
from recrank.features import POPULARITY, DeclaredFeatures
from recrank.ranker import Ranker, Shortlist
from recrank.request_rows import Ask
from recrank.trees import TreeRanker
from recsys.declaration.features import Feature
from recsys.items import Item
from topk.item_table import F32
from topk.row_lists import RowLists

# The manifest's facts about the learned ranker.
FACTS = "ranker"


@dataclass(frozen=True, slots=True)
class FeatureInputs:
    """
    The features that the declaration of an artefact has, and the data that they read.

    Attributes:
        features: The features by name.
        items: The catalogue.
        arrays: The arrays of windowed popularity.
    """

    features: Mapping[str, Feature]
    items: Sequence[Item]
    arrays: Arrays

    @classmethod
    def of(cls, artefact: Artefact) -> "FeatureInputs":
        """Return the features of *artefact*, which are not made yet."""
        arrays = {name: array for name, array in artefact.arrays.items() if name.startswith(POPULARITY)}
        return cls(artefact.declaration.features or {}, artefact.items, arrays)

    def only(self, names: Sequence[str]) -> DeclaredFeatures:
        """
        Make the features among *names*.

        Raises:
            KeyError, TypeError, ValueError: a feature cannot be made.
        """
        chosen = {name: feature for name, feature in self.features.items() if name in names}
        return DeclaredFeatures(chosen, self.items, self.arrays)


@dataclass(frozen=True, slots=True)
class Reranker:
    """
    A ranker and the declared features that it reads.

    Attributes:
        ranker: The ranker.
        features: The features.
        least_history: Users whose history has fewer known items get the list of the blend.
    """

    ranker: Ranker
    features: DeclaredFeatures
    least_history: int = 0

    @classmethod
    def of(cls, artefact: Artefact, given: Ranker | None, declared: FeatureInputs) -> "Reranker | None":
        """
        Return the reranker of the ranker *given*, or else of the artefact's own; None without one.

        Raises:
            ArtefactError: the ranker reads a column that the model does not have.
            KeyError, TypeError, ValueError: a feature cannot be made, or the arrays of the ranker do not fit.
        """
        learned = None if given else TreeRanker.read(artefact.arrays, artefact.manifest.training.get(FACTS, {}))
        ranker = given or learned
        if ranker is None:
            return None
        known = (*built_in(len(artefact.arrays.get("neighbours_half_lives", ()))), *declared.features)
        if unknown := [name for name in ranker.names if name not in known]:
            raise ArtefactError(
                f"the ranker reads columns that the model does not have: {', '.join(unknown)}; it has {', '.join(known)}"
            )
        return cls(ranker, declared.only(ranker.names), learned.least_history if learned else 0)

    def takes(self, ask: Ask) -> bool:
        """Tell whether the ranker scores the candidates of *ask*."""
        return len(ask.history) >= self.least_history

    def score(self, shortlist: Shortlist, asks: Sequence[Ask], history: RowLists) -> F32:
        """Return the ranker's score of each candidate, (N,)."""
        matrix = make_columns(self.ranker.names, shortlist, asks, history, self.features)
        return self.ranker.score(matrix, shortlist.counts)
