"""
Benchmark of ranking: CPU time of a call of the model, for one request and for a batch of 32, on one thread.

    factors    the factors alone
    blend      factors, popularity, and two neighbour sources
    ranker     the blend, and 60 trees over eleven columns, of which three are declared features

Catalogues and histories of 40 items are random. Rounds alternate between the models. The answers of a batch are compared
with those to each request alone.
"""

import statistics
import time
from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace
from threadpoolctl import threadpool_limits

from recrank.artefact import Arrays, Artefact, Declared, Item
from recrank.columns import built_in
from recrank.model import Query, RankingModel
from recrank.reranking import FACTS
from recrank.trees import MOST_LEAVES, STEPS, TreeRanker
from recsys.declaration.features import Feature
from recsys.declaration.types import Attribute, Declaration, EventKind, Items
from recsys.features import UNKNOWN_FEATURES
from tools.bench.batching import make_artefact
from tools.bench.processes import in_turns
from tools.bench.report import BenchReport, BenchTarget, ReportRow

FACTORS, BLEND, RANKER = MODELS = ("factors", "blend", "ranker")

_DIMS, _HISTORY, _BATCH, _TREES, _GENRES = 64, 40, 32, 60, 18
_DECLARED = Declaration(
    {"view": EventKind(1.0, "views")},
    Items({"genres": Attribute("multi-valued"), "stars": Attribute("number")}),
    features={
        "genre_fits": Feature("match", attribute="genres"),
        "mood_fits": Feature("match", attribute="genres", user_attribute="mood"),
        "stars": Feature("attribute", of="item", attribute="stars"),
    },
)
# The leaves that stay if a value is above the threshold of a node of a full tree, from the root down.
_MASKS = np.array([0xF0, 0xFC, 0xCF, 0xFE, 0xFB, 0xEF, 0xBF], np.uint8)


def measure(*, quick: bool) -> BenchReport:
    """Measure a small catalogue, in which each source scores all items, and a large one."""
    rounds, sizes = (2, (1000, 5000)) if quick else (30, (1000, 100_000))
    with threadpool_limits(1):
        rows = [row for items in sizes for row in _compare(items, rounds=rounds)]
    return BenchReport("ranking", rows, _targets(rows))


def make_artefacts(items: int) -> dict[str, Artefact]:
    """Return in-memory models of random numbers, for timing only."""
    rng = np.random.default_rng(0)
    factors = make_artefact(items=items, dims=_DIMS)
    words = rng.integers(0, _GENRES, (items, 2))
    catalogue = [
        Item(f"item_{row}", attributes={"genres": tuple(f"genre_{word}" for word in own), "stars": (str(row % 5),)})
        for row, own in enumerate(words.tolist())
    ]
    blend = {**factors.arrays, **_blend_arrays(rng, items, neighbours=200 if items <= 5000 else 60)}
    names = (*built_in(2), *(_DECLARED.features or {}))
    nodes = (_TREES, _MASKS.size)
    trees = TreeRanker(
        names,
        0,
        rng.integers(0, len(names), nodes).astype(np.int32),
        rng.random(nodes, np.float32),
        np.tile(_MASKS, (_TREES, 1)),
        (rng.integers(-STEPS, STEPS, (_TREES, MOST_LEAVES)) / STEPS).astype(np.float32),
    )
    facts = {FACTS: {"names": names, "least_history": 0}}
    manifest = replace(factors.manifest, declaration=Declared(_DECLARED.digest, _DECLARED), training=facts)
    return {
        FACTORS: factors,
        BLEND: replace(factors, arrays=blend),
        RANKER: Artefact(manifest, {**blend, **trees.arrays()}, catalogue),
    }


def _blend_arrays(rng: np.random.Generator, items: int, *, neighbours: int) -> Arrays:
    size = items * neighbours
    arrays = {
        "item_recent_popularity": rng.integers(0, 100, items).astype(np.float32),
        "neighbours_half_lives": np.array([1.0, 3.0]),
        "blend_lengths": np.zeros(1, np.int64),
        "blend_weights": np.array([[1, 0.1, 0.1, 0.7, 0.5]], np.float32),
    }
    for source in range(2):
        arrays[f"neighbours_{source}_ends"] = np.arange(0, size + 1, neighbours)
        arrays[f"neighbours_{source}_items"] = rng.integers(0, items, size).astype(np.int32)
        arrays[f"neighbours_{source}_weights"] = rng.uniform(0.1, 1, size).astype(np.float32)
    return arrays


def _compare(items: int, *, rounds: int) -> list[ReportRow]:
    models = {name: RankingModel(artefact) for name, artefact in make_artefacts(items).items()}
    rng = np.random.default_rng(1)
    batch = [
        Query(
            UNKNOWN_FEATURES,
            [f"item_{row}" for row in rng.choice(items, _HISTORY, replace=False)],
            top_k=10,
            at_us=0,
            user_attributes={"mood": ("genre_3",)},
        )
        for _ in range(_BATCH)
    ]
    one: dict[str, list[float]] = {name: [] for name in MODELS}
    full: dict[str, list[float]] = {name: [] for name in MODELS}
    for number in range(rounds):
        for name in in_turns(MODELS, number):
            one[name].append(_cpu_ms(models[name], [[query] for query in batch]))
            full[name].append(_cpu_ms(models[name], [batch] * 2))
    return [
        {
            "items": items,
            "model": name,
            "one_ms": round(statistics.median(one[name]), 3),
            "batch_ms": round(statistics.median(full[name]), 2),
            "least_one_ms": round(min(one[name]), 3),
            "least_batch_ms": round(min(full[name]), 2),
            "differing": sum(
                model.rank([query]) != [answer] for query, answer in zip(batch, model.rank(batch), strict=True)
            ),
        }
        for name, model in models.items()
    ]


def _cpu_ms(model: RankingModel, calls: Sequence[Sequence[Query]]) -> float:
    """Return CPU milliseconds per call."""
    began = time.process_time()
    for queries in calls:
        model.rank(queries)
    return (time.process_time() - began) / len(calls) * 1e3


def _targets(rows: Sequence[ReportRow]) -> list[BenchTarget]:
    found = {(row["items"], row["model"]): row for row in rows}
    small, large = sorted({row["items"] for row in rows})
    added = {items: found[items, RANKER]["one_ms"] - found[items, FACTORS]["one_ms"] for items in (small, large)}
    return [
        BenchTarget(f"one request, {small:,} items, blend, ms", found[small, BLEND]["one_ms"], "<=", 0.3),
        *(
            BenchTarget(f"one request, {items:,} items, added by the ranker, ms", ms, "<=", 1)
            for items, ms in added.items()
        ),
        BenchTarget(f"batch of {_BATCH}, {large:,} items, ranker, ms", found[large, RANKER]["batch_ms"], "<=", 40),
        BenchTarget("answers that differ in a batch", sum(row["differing"] for row in rows), "<=", 0),
    ]
