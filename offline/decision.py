"""Choose all that a training needs: the settings, and whether a learned ranker serves."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from offline.als import AlsSettings
from offline.choice import choose
from offline.evaluation.trials import Trial
from offline.rehearsal import rehearse
from offline.reranking import RankerVerdict, choose_ranker
from offline.training import BlendSettings, ModelSettings
from recrank.reranking import FACTS
from recrank.trees import TreeRanker
from recsys.declaration.types import Declaration
from recsys.items import Item
from recsys.records import UserRecord


@dataclass(frozen=True)
class TrainingDecision:
    """
    The settings of a training, and the decision about a ranker.

    Attributes:
        settings: The settings.
        trials: The trials behind both.
        verdict: The decision about a ranker; None without declared features.
    """

    settings: ModelSettings
    trials: Sequence[Trial]
    verdict: RankerVerdict | None = None

    @property
    def ranker(self) -> TreeRanker | None:
        """The learned ranker; None if the blend ranks."""
        return self.verdict.ranker if self.verdict else None

    def facts(self) -> dict[str, Any]:
        """Return the trials and the decision for a manifest."""
        tried = [{"what": each.what, "ndcg_10": each.ndcg_10, "recall_20": each.recall_20} for each in self.trials]
        return {"choice": tried, **({FACTS: dict(self.verdict.facts)} if self.verdict else {})}

    def describe(self) -> Iterator[str]:
        """Yield a line for each trial, and for the decision about a ranker."""
        for trial in self.trials:
            yield f"{trial.what}: NDCG@10 {trial.ndcg_10:.4f}, Recall@20 {trial.recall_20:.4f}"
        if self.verdict:
            yield self.verdict.describe()
            yield from self.verdict.describe_features()


def decide(
    records: Sequence[UserRecord],
    *,
    declaration: Declaration | None,
    items: Mapping[str, Item],
    shown: Mapping[str, Item],
    als: AlsSettings | None = None,
    ahead: bool = True,
    neighbours: bool = True,
    tell: Callable[[str], None] = lambda _: None,
) -> TrainingDecision:
    """
    Choose the settings for *records*, and a ranker if the *declaration* has features.

    Args:
        records: The training data.
        declaration: Tells the features; None for none.
        items: The attributes that training learns from, by item id.
        shown: The items with all of their attributes, which features may read.
        als: As of `choose`; the same for the last two.
        ahead: Whether the model predicts each user's next items.
        neighbours: Whether neighbours may rank.
        tell: Takes the name of each step when it begins.
    """
    chosen = choose(records, items=items, als=als, ahead=ahead, neighbours=neighbours, tell=tell)
    if not (declaration and declaration.features):
        return TrainingDecision(chosen.settings, chosen.trials)
    settings = chosen.settings
    if settings.blend is None:
        settings = replace(settings, blend=_factors_alone())
    tell("choosing the ranker")
    held = rehearse(records, settings, declaration, items=items, shown=shown, ahead=ahead)
    verdict = choose_ranker(declaration, held)
    return TrainingDecision(settings if verdict.ranker else chosen.settings, [*chosen.trials, *verdict.trials], verdict)


def _factors_alone() -> BlendSettings:
    """Return a blend that ranks by the factors, so that a ranker gets shortlists."""
    return BlendSettings(ordered=True, views=(), lengths=(0,), weights=((1.0, 0.0, 0.0),))
