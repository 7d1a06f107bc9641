"""
The conformance kit for models of a team's own: whether a model fits its declaration, and answers as the pipeline needs it.

Checks: inputs and outputs, equal answers for a batch and for each of its requests alone, and equal answers when asked
again. Measurements: time for 1 and for 32 requests, and memory. On a GPU, vectors and scores of a batch may differ from
those of a lone request by `GPU_TOLERANCE`, because matrix products of other shapes add in another order.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from statistics import median

import numpy as np
import psutil
from msgspec import Struct
from threadpoolctl import threadpool_limits

from recrank.artefact import ENCODER, RANKER, Artefact
from recrank.encoder import FEATURES, EncoderError
from recrank.memory import MIB
from recrank.model import Query, Ranking, RankingModel
from recrank.onnx_model import Provider
from recrank.own_models import RankerError, open_model
from recrank.prior import KNOWN_AGES
from recsys.features import UNKNOWN_FEATURES

GPU_TOLERANCE = 1e-3
_BATCH = 32
_ROUNDS = 15
_LONGEST = 60
_TOP_K = 20
_KIB = 1024


class Check(Struct, frozen=True):
    """A rule, whether the model keeps it, and how that was found."""

    name: str
    passed: bool
    detail: str


class Conformance(Struct, frozen=True):
    """
    The result of the kit.

    Attributes:
        checks: The rules.
        latency_ms: Median time of a batch by its size.
        memory_mib: Memory that opening and running the model added to this process.
    """

    checks: list[Check]
    latency_ms: dict[int, float]
    memory_mib: int

    @property
    def conforms(self) -> bool:
        """Whether the model keeps all rules."""
        return all(check.passed for check in self.checks)

    def describe(self) -> Iterator[str]:
        """Yield a line for each rule and measurement."""
        for check in self.checks:
            yield f"{'ok    ' if check.passed else 'FAILED'} {check.name}: {check.detail}"
        for size, each in self.latency_ms.items():
            yield f"       latency of {size} {'request' if size == 1 else 'requests'}: {each:.2f} ms"
        yield f"       memory: {self.memory_mib} MiB"


def check_conformance(artefact: Artefact, *, provider: Provider = "cpu") -> Conformance:
    """
    Check the model of *artefact* with the ranker and the encoder that it declares.

    Raises:
        ArtefactError: the model does not fit its declaration, or cannot rank.
    """
    before = _memory_bytes()
    with threadpool_limits(limits=1), ThreadPoolExecutor(1) as pool:
        model = open_model(artefact, provider=provider, pool=pool)
        queries = _make_queries(model, _BATCH)
        checks = [Check("inputs and outputs", True, _describe(artefact))]
        try:
            other = open_model(artefact, provider=provider, pool=pool)
            checks += _compare(model, other, queries, tolerance=GPU_TOLERANCE if provider == "cuda" else 0.0)
        except (RankerError, EncoderError) as error:
            return Conformance([*checks, Check("answers", False, str(error))], {}, _mib(before))
        latency = {size: _measure(model, queries[:size]) for size in (1, _BATCH)}
    return Conformance(checks, latency, _mib(before))


def _describe(artefact: Artefact) -> str:
    declared, parts = artefact.declaration, []
    if declared.ranker:
        columns = f" of {', '.join(declared.ranker.inputs)}" if declared.ranker.inputs else ""
        parts.append(f"the ranker ({declared.ranker.kind}{_size(artefact, RANKER)}) gives scores{columns}")
    if declared.encoder:
        dimensions = artefact.manifest.shapes["item_factors"][1]
        size = _size(artefact, ENCODER)
        parts.append(
            f"the encoder ({declared.encoder.kind}{size}) gives {dimensions} numbers from the newest "
            f"{declared.encoder.history} items and {len(FEATURES)} features"
        )
    return "; ".join(parts) or "the project's own ranker and encoder"


def _size(artefact: Artefact, file: str) -> str:
    content = artefact.files.get(file)
    return f", {len(content) / _KIB:.0f} KiB" if content else ""


def _compare(model: RankingModel, other: RankingModel, queries: Sequence[Query], *, tolerance: float) -> list[Check]:
    """Check the answers of *model*; *other* is the same artefact, opened again."""
    together = model.rank(queries)
    alone = list(chain.from_iterable(model.rank([query]) for query in queries))
    reverse, again = model.rank(queries[::-1])[::-1], other.rank(queries)
    rule = f"scores within {tolerance:g}, because a GPU adds in another order" if tolerance else "bit for bit"
    return [
        _same("batch equals single", together, alone, f"{len(queries)} requests, {rule}", tolerance),
        _same("order does not matter", together, reverse, f"{len(queries)} requests in reverse, {rule}", tolerance),
        _same("same answer after a restart", together, again, f"{len(queries)} requests, {rule}", tolerance),
    ]


def _same(name: str, one: Sequence[Ranking], two: Sequence[Ranking], detail: str, tolerance: float) -> Check:
    for place, (left, right) in enumerate(zip(one, two, strict=True)):
        if not _equal(left, right, tolerance):
            at = next(
                (at for at, pair in enumerate(zip(left.scores, right.scores, strict=False)) if len(set(pair)) > 1), 0
            )
            shown = f"{left.item_ids[at]} {left.scores[at]!r} and {right.item_ids[at]} {right.scores[at]!r}"
            return Check(name, False, f"request {place} differs: {shown}")
    return Check(name, True, detail)


def _equal(one: Ranking, two: Ranking, tolerance: float) -> bool:
    if not tolerance:
        return one.item_ids == two.item_ids and one.scores == two.scores
    # Items whose scores are closer than the tolerance may change places.
    return len(one.scores) == len(two.scores) and np.allclose(one.scores, two.scores, rtol=tolerance, atol=tolerance)


def _make_queries(model: RankingModel, number: int) -> list[Query]:
    """Return requests of users with histories of all lengths, without one, and with an item that the model does not know."""
    rng = np.random.default_rng(0)
    queries = []
    for place in range(number):
        length = min(place * _LONGEST // number, len(model.item_ids))
        history = [model.item_ids[row] for row in rng.choice(len(model.item_ids), length, replace=False)]
        age = KNOWN_AGES[place % len(KNOWN_AGES)]
        features = type(UNKNOWN_FEATURES)(age, float(place * 60), place, place / number)
        queries.append(Query(features, [*history, "an item that the model does not know"], _TOP_K))
    return queries


def _measure(model: RankingModel, queries: Sequence[Query]) -> float:
    """Return the median milliseconds of a batch of *queries*."""
    times = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        model.rank(queries)
        times.append(time.perf_counter() - began)
    return round(median(times) * 1000, 3)


def _memory_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def _mib(before_bytes: int) -> int:
    return round((_memory_bytes() - before_bytes) / MIB)
