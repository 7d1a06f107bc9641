"""
Learn a ranker of boosted trees (LambdaMART) on the candidates of held-out users, and judge it out of fold.

The users are split into `FOLDS` groups. Each group is judged by an ensemble that the other groups learned: one of them
stops the growth, so that no user counts for both. The final ensemble learns from all users, with the mean number of
trees. LightGBM grows the trees, and the ensemble becomes plain arrays (`recrank.trees`).

Source: Burges 2010, "From RankNet to LambdaRank to LambdaMART: an overview".
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recrank.trees import MOST_LEAVES, STEPS, TreeRanker
from topk.item_table import F32, I64

FOLDS = 5
_MOST_TREES, _PATIENCE = 60, 15
_SETTINGS: dict[str, Any] = {
    "objective": "lambdarank",
    "metric": "ndcg",
    "eval_at": [10],
    "lambdarank_truncation_level": 20,
    "num_leaves": MOST_LEAVES,
    "learning_rate": 0.1,
    "min_data_in_leaf": 100,
    "use_missing": False,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "seed": 1,
    "verbosity": -1,
}
_ALL_LEAVES = (1 << MOST_LEAVES) - 1


class LearnerError(Exception):
    """The library that grows the trees cannot be loaded."""


@dataclass(frozen=True)
class Examples:
    """
    Candidates of held-out users, to learn from.

    Attributes:
        names: The columns of *features*.
        features: (N, F) float32, grouped by user.
        counts: (U,) number of candidates of each user, above 0.
        found: (N,) bool, whether the candidate is held out for its user.
    """

    names: tuple[str, ...]
    features: F32
    counts: I64
    found: NDArray[np.bool_]

    def only(self, users: NDArray[np.bool_]) -> "Examples":
        """Return the candidates of *users* (U,)."""
        kept = np.repeat(users, self.counts)
        return Examples(self.names, self.features[kept], self.counts[users], self.found[kept])


@dataclass(frozen=True)
class Boosted:
    """
    A learned ranker.

    Attributes:
        ranker: The ensemble of all users.
        judges: For each fold, an ensemble that did not learn from its users.
    """

    ranker: TreeRanker
    judges: Sequence[TreeRanker]

    def score(self, examples: Examples, folds: I64, *, without: tuple[str, float] | None = None) -> F32:
        """
        Return the score (N,) of each candidate of *examples* out of fold.

        Args:
            examples: The candidates.
            folds: (U,) the fold of each user.
            without: A column to take as missing everywhere, and the number that stands for a missing value.
        """
        scores = np.zeros(len(examples.features), np.float32)
        for fold, judge in enumerate(self.judges):
            users = folds == fold
            ranker = without_column(judge, *without) if without else judge
            mine = np.repeat(users, examples.counts)
            scores[mine] = ranker.score(examples.features[mine], examples.counts[users])
        return scores


def boost(examples: Examples, folds: I64) -> Boosted:
    """
    Learn a ranker from *examples*; *folds* (U,) is the fold of each user, from 0 to `FOLDS` - 1.

    Equal examples give equal arrays on machines of the same kind.

    Cost: `FOLDS` + 1 ensembles, about 1 s each for 200,000 candidates and 15 columns.
    """
    judges = []
    for fold in range(FOLDS):
        judged, stops = folds == fold, folds == (fold + 1) % FOLDS
        judges.append(_pack(_fit(examples.only(~(judged | stops)), stops=examples.only(stops)), examples.names))
    trees = max(1, round(sum(len(judge.features) for judge in judges) / FOLDS))
    return Boosted(_pack(_fit(examples, trees=trees), examples.names), judges)


def without_column(ranker: TreeRanker, name: str, missing: float) -> TreeRanker:
    """Return *ranker* with the answers that its nodes give if the column *name* is *missing*."""
    reads = ranker.features == ranker.names.index(name)
    limits = np.finfo(np.float32)
    answers = np.where(np.float32(missing) > ranker.thresholds, limits.min, limits.max)
    return replace(ranker, thresholds=np.where(reads, answers, ranker.thresholds).astype(np.float32))


def _fit(examples: Examples, *, stops: Examples | None = None, trees: int = _MOST_TREES) -> list[dict[str, Any]]:
    """Return the trees of an ensemble; it grows until it no longer helps the users of *stops*."""
    lightgbm = _import_lightgbm()

    data = _dataset(lightgbm, examples)
    valid = [_dataset(lightgbm, stops, reference=data)] if stops else []
    patience: list[Callable[..., Any]] = [lightgbm.early_stopping(_PATIENCE, verbose=False)] if stops else []
    booster = lightgbm.train(_SETTINGS, data, trees, valid_sets=valid, callbacks=patience)
    dumped = booster.dump_model(num_iteration=booster.best_iteration if stops else None)
    return [tree["tree_structure"] for tree in dumped["tree_info"]]


def _import_lightgbm() -> Any:
    """
    Return the library. Only trainings with declared features need it.

    Raises:
        LearnerError: the system has no OpenMP.
    """
    try:
        import lightgbm  # noqa: PLC0415
    except OSError as error:
        raise LearnerError(f"LightGBM cannot be loaded: {error}; on Debian, install libgomp1") from error
    return lightgbm


def _dataset(lightgbm: Any, examples: Examples, *, reference: Any = None) -> Any:
    return lightgbm.Dataset(
        examples.features,
        label=examples.found.astype(np.float32),
        group=examples.counts,
        reference=reference,
        feature_name=[f"c{place}" for place in range(len(examples.names))],
        params={"verbosity": -1, "use_missing": False},
    )


def _pack(trees: Sequence[dict[str, Any]], names: tuple[str, ...]) -> TreeRanker:
    """Return *trees* as arrays."""
    shape = (len(trees), MOST_LEAVES - 1)
    features, masks = np.zeros(shape, np.int32), np.full(shape, _ALL_LEAVES, np.uint8)
    thresholds = np.full(shape, np.finfo(np.float32).max, np.float32)
    values = np.zeros((len(trees), MOST_LEAVES), np.float32)
    for number, tree in enumerate(trees):
        leaves = list(_leaves(tree))
        values[number, : len(leaves)] = np.round(np.array(leaves) * STEPS) / STEPS
        for place, (column, threshold, mask) in enumerate(_nodes(tree, 0)):
            features[number, place], masks[number, place] = column, mask
            thresholds[number, place] = _round_down(threshold)
    return TreeRanker(names, 0, features, thresholds, masks, values)


def _leaves(node: dict[str, Any]) -> Iterator[float]:
    """Yield the values of the leaves under *node*, from left to right."""
    if "leaf_value" in node:
        yield float(node["leaf_value"])
    else:
        yield from _leaves(node["left_child"])
        yield from _leaves(node["right_child"])


def _nodes(node: dict[str, Any], first: int) -> Iterator[tuple[int, float, int]]:
    """Yield column, threshold and mask of the inner nodes under *node*, whose leftmost leaf is the leaf *first*."""
    if "leaf_value" in node:
        return
    left = sum(1 for _ in _leaves(node["left_child"]))
    yield node["split_feature"], float(node["threshold"]), _ALL_LEAVES & ~(((1 << left) - 1) << first)
    yield from _nodes(node["left_child"], first)
    yield from _nodes(node["right_child"], first + left)


def _round_down(threshold: float) -> np.float32:
    """Return the largest float32 that is at most *threshold*, so that the same float32 numbers are at most both."""
    rounded = np.float32(threshold)
    return rounded if float(rounded) <= threshold else np.nextafter(rounded, np.float32(-np.inf))
