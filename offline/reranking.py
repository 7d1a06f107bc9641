"""
Choose whether a learned ranker serves: learn it on held-out users, and hold it against the blend out of fold.

The ranker learns from the candidates and the features that serving would compute, because a model collects them
(`_Collector`). It learns from two groups of users (`offline.rehearsal`). Users of the first group have their newest
items held out. Newcomers, the second group, have all but their first few items held out. The ranker serves if it gains
`LEAST_GAIN` and `SURE` standard errors of NDCG@10 with the first group. If it does not gain with newcomers, users with
short histories keep the list of the blend.

If it serves, each declared feature is judged too: how much NDCG@10 is lost out of fold if the feature is missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from offline.boosting import FOLDS, Boosted, Examples, boost
from offline.descriptions import Arrays
from offline.evaluation.quality import DEPTH, hold, number_columns, score_lists
from offline.evaluation.trials import Trial
from offline.return_weights import LEAST_GAIN, SURE
from recrank.artefact import Artefact, Declared, Item, Manifest
from recrank.columns import built_in
from recrank.model import Query, RankingModel
from recrank.trees import TreeRanker
from recsys.declaration.features import Feature
from recsys.declaration.types import Declaration
from topk.candidates import rank_candidates
from topk.item_table import F32, F64, I64

# The numbers of items that are known of a newcomer.
MOST_KNOWN = 5
KNOWN = (0, 1, 2, MOST_KNOWN)
_BATCH = 64


@dataclass(frozen=True)
class Group:
    """
    Held-out users, and the part of the model that was trained without what is held out.

    Attributes:
        arrays: The artefact's arrays, with the blend and the popularity of the features.
        items: The catalogue of the arrays, with its attributes.
        queries: One query per user.
        held: Item ids to be found, one list per query.
        users: (Q,) the user of each query, from 0 on.
    """

    arrays: Arrays
    items: Sequence[Item]
    queries: Sequence[Query]
    held: Sequence[Sequence[str]]
    users: I64


@dataclass(frozen=True)
class RankerVerdict:
    """
    The decision about the learned ranker.

    Attributes:
        ranker: The ranker, if it serves.
        facts: The decision for the manifest.
        trials: The blend and the ranker on each group.
    """

    ranker: TreeRanker | None
    facts: Mapping[str, Any]
    trials: Sequence[Trial]

    def describe(self) -> str:
        """Return the decision in one line for the log."""
        return f"ranker: {self.facts['why']}"

    def describe_features(self) -> Iterator[str]:
        """Yield a line for each declared feature of a ranker that serves."""
        for name, change in self.facts.get("without", {}).items():
            yield f"ranker without feature {name}: NDCG@10 {change:+.1%} out of fold"


def choose_ranker(declaration: Declaration, held: Sequence[Group]) -> RankerVerdict:
    """
    Learn a ranker over the declared features, and decide whether it serves.

    Args:
        declaration: The declaration of the features.
        held: Users whose next items are held out, then newcomers, if there are any.

    Cost: see `boost`.
    """
    groups = [_Candidates.of(group, declaration) for group in held]
    if not groups:
        return RankerVerdict(
            None, {"serves": False, "why": "the blend serves, because too few users can judge a ranker"}, ()
        )
    boosted = boost(_join([group.examples for group in groups]), np.concatenate([group.folds for group in groups]))
    names = ("all hold-out users", "newcomers")
    judged = [group.judge(boosted, what=what) for group, what in zip(groups, names, strict=False)]
    verdict = _decide(boosted, judged)
    if not verdict.ranker:
        return verdict
    without = groups[0].judge_features(boosted, declaration.features or {})
    return replace(verdict, facts={**verdict.facts, "without": without})


def _decide(boosted: Boosted, judged: "Sequence[_Judged]") -> RankerVerdict:
    first, *others = judged
    trials = [trial for each in judged for trial in (each.blend, each.ranker)]
    facts = {"names": list(boosted.ranker.names), "gain": round(first.gain, 4), "error": round(first.error, 4)}
    least = 0 if all(each.gain >= 0 for each in others) else MOST_KNOWN + 1
    need = max(LEAST_GAIN, SURE * first.error)
    figures = f"NDCG@10 {first.gain:+.1%} ± {first.error:.1%} out of fold against the blend"
    if first.gain < need:
        why = f"the blend serves, because the learned ranker has {figures} and needs {need:+.1%}"
        return RankerVerdict(None, {**facts, "serves": False, "why": why}, trials)
    whom = f"histories of {least} items and more" if least else "all histories"
    why = f"the learned ranker serves {whom}: {len(boosted.ranker.features)} trees, {figures}"
    return RankerVerdict(
        replace(boosted.ranker, least_history=least),
        {**facts, "serves": True, "why": why, "least_history": least},
        trials,
    )


@dataclass(frozen=True)
class _Judged:
    """The blend and the ranker on a group, and the gain of NDCG@10 with its standard error."""

    blend: Trial
    ranker: Trial
    gain: float
    error: float


class _Collector:
    """A ranker that keeps the features and returns the score of the blend."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.features: list[F32] = []

    def score(self, features: F32, counts: I64) -> F32:
        """Return the first column, the score of the blend."""
        self.features.append(features)
        return features[:, 0]


@dataclass(frozen=True)
class _Candidates:
    """
    The shortlists of a group.

    Attributes:
        examples: The features.
        columns: (N,) the column of each candidate in *held*.
        held: (Q, W) items to be found.
        users: (Q,) the user of each query.
    """

    examples: Examples
    columns: I64
    held: csr_array
    users: I64

    @property
    def folds(self) -> I64:
        """The fold of each query; queries of one user share it."""
        return self.users % FOLDS

    @classmethod
    def of(cls, group: Group, declaration: Declaration) -> "_Candidates":
        """Rank the queries of *group* by its blend, and keep the candidates and their features."""
        names = (*built_in(len(group.arrays["neighbours_half_lives"])), *(declaration.features or {}))
        collector = _Collector(names)
        manifest = Manifest("inner", "0", 0, {}, {}, {}, {}, Declared(declaration.digest, declaration))
        with threadpool_limits(limits=1):
            model = RankingModel(Artefact(manifest, dict(group.arrays), list(group.items)), ranker=collector)
            # The model ranks once when it is made.
            collector.features.clear()
            batches = [group.queries[start : start + _BATCH] for start in range(0, len(group.queries), _BATCH)]
            lists = [ranking.item_ids for batch in batches for ranking in model.rank(batch)]
        columns = number_columns(model.item_ids, group.held)
        found = [
            item_id in wanted
            for ids, held in zip(lists, group.held, strict=True)
            for wanted in [{*held}]
            for item_id in ids
        ]
        return cls(
            Examples(
                names,
                np.concatenate(collector.features),
                np.array([len(ids) for ids in lists], np.int64),
                np.array(found, np.bool_),
            ),
            np.array([columns[item_id] for ids in lists for item_id in ids], np.int64),
            hold(group.held, columns),
            group.users,
        )

    def judge(self, boosted: Boosted, *, what: str) -> _Judged:
        """Compare the lists by *boosted* with those of the blend."""
        scores = boosted.score(self.examples, self.folds)
        before, after = (self._lists(each) for each in (self.examples.features[:, 0], scores))
        gain, error = self._gain(score_lists(after, self.held)[0], score_lists(before, self.held)[0])
        return _Judged(
            Trial.judge(f"{what}: shortlist by the blend", before, self.held),
            Trial.judge(f"{what}: shortlist by the learned ranker, out of fold", after, self.held),
            gain,
            error,
        )

    def judge_features(self, boosted: Boosted, features: Mapping[str, Feature]) -> dict[str, float]:
        """Return the share by which NDCG@10 of *boosted* changes if a feature is missing, by feature."""
        whole = self._ndcg(boosted.score(self.examples, self.folds))
        return {
            name: round(self._gain(self._ndcg(boosted.score(self.examples, self.folds, without=without)), whole)[0], 4)
            for name, feature in features.items()
            for without in [(name, feature.missing)]
        }

    def _ndcg(self, scores: F32) -> F64:
        return score_lists(self._lists(scores), self.held)[0]

    def _gain(self, scores: F64, others: F64) -> tuple[float, float]:
        """Return the mean of *scores* over that of *others*, less 1, and its standard error over users."""
        sizes = np.maximum(np.bincount(self.users), 1)
        mine, theirs = (np.bincount(self.users, each) / sizes for each in (scores, others))
        asked = np.bincount(self.users) > 0
        relative = ((mine - theirs) / max(float(theirs[asked].mean()), 1e-9))[asked]
        return float(relative.mean()), float(relative.std()) / relative.size**0.5

    def _lists(self, scores: F32) -> I64:
        return rank_candidates(self.columns, scores, counts=self.examples.counts, limit=DEPTH).ids


def _join(parts: Sequence[Examples]) -> Examples:
    return Examples(
        parts[0].names,
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("features", "counts", "found")),
    )
