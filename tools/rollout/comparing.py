"""From answers to what can be held against a limit. Pure."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any


@dataclass(frozen=True)
class Answer:
    """
    One answer, or that there was none.

    Attributes:
        milliseconds: From sending to the end of the body.
        fault: What was wrong with it; None for a good one.
        ranking: The ids it ranks, best first; None where it ranks nothing.
        revision: Who says to have answered, where that is said.
    """

    milliseconds: float
    fault: str | None = None
    ranking: tuple[str, ...] | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Trial:
    """The same request, put to both revisions by name, and to the Service as everybody does."""

    current: Answer
    candidate: Answer
    live: Answer


@dataclass(frozen=True)
class Figures:
    """
    What a number of answers amount to.

    Attributes:
        requests: How many there were.
        faults: How many of them were none, or none to be had.
        error_rate: Their share.
        p50_ms: Of the good ones; 0 where there are none.
        p99_ms: Likewise, by nearest rank.
    """

    requests: int
    faults: int
    error_rate: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Comparison:
    """
    A step's outcome.

    Attributes:
        share: Percent of everybody's traffic that the candidate had.
        current: The present revision, asked by name.
        candidate: The candidate, asked by name.
        live: What the Service answered on behalf of the candidate.
        live_current: And on behalf of the present one.
        overlap: Mean share of the present revision's top-k that is also in the candidate's; None without rankings.
        correlation: Mean Kendall correlation of the items both rank; None where no two are common.
        fault: An example of what was wrong with the candidate's answers.
    """

    share: int
    current: Figures
    candidate: Figures
    live: Figures
    live_current: Figures
    overlap: float | None
    correlation: float | None
    fault: str | None


def compare(trials: Sequence[Trial], *, share: int, candidate: str) -> Comparison:
    """Compare over *trials*."""
    live = [t.live for t in trials if is_its(t.live, share=share, candidate=candidate)]
    others = [t.live for t in trials if not is_its(t.live, share=share, candidate=candidate)]
    ranked = [(t.current.ranking, t.candidate.ranking) for t in trials]
    pairs = [(one, other) for one, other in ranked if one and other is not None]
    faults = [a.fault for a in (*(t.candidate for t in trials), *live) if a.fault]
    return Comparison(
        share=share,
        current=figures([t.current for t in trials]),
        candidate=figures([t.candidate for t in trials]),
        live=figures(live),
        live_current=figures(others),
        overlap=_mean([overlap(one, other) for one, other in pairs]),
        correlation=_mean([c for one, other in pairs if (c := correlation(one, other)) is not None]),
        fault=faults[0] if faults else None,
    )


def is_its(answer: Answer, *, share: int, candidate: str) -> bool:
    """
    Tell whether a live *answer* counts as the candidate's.

    One without a revision does while the candidate has traffic: no benefit of the doubt.
    """
    return answer.revision == candidate or (answer.revision is None and share > 0)


def count_faults(trials: Sequence[Trial], *, share: int, candidate: str) -> int:
    """Return how many of the candidate's answers were faults, of those by name or of the live ones."""
    by_name = sum(t.candidate.fault is not None for t in trials)
    live = sum(t.live.fault is not None and is_its(t.live, share=share, candidate=candidate) for t in trials)
    return max(by_name, live)


def figures(answers: Sequence[Answer]) -> Figures:
    """Sum *answers* up."""
    good = sorted(answer.milliseconds for answer in answers if answer.fault is None)
    faults = len(answers) - len(good)
    return Figures(
        requests=len(answers),
        faults=faults,
        error_rate=faults / len(answers) if answers else 0.0,
        p50_ms=statistics.median(good) if good else 0.0,
        p99_ms=good[math.ceil(0.99 * len(good)) - 1] if good else 0.0,
    )


def overlap(one: Sequence[str], other: Sequence[str]) -> float:
    """Return the share of *one* that *other* holds as well."""
    return len({*one} & {*other}) / len({*one})


def correlation(one: Sequence[str], other: Sequence[str]) -> float | None:
    """
    Return Kendall's tau of two rankings over the items they share: 1 for the same order, -1 for the reverse.

    None where they share fewer than two. Cost: k² / 2 comparisons for k shared items.
    """
    place = {item: rank for rank, item in enumerate(other)}
    ranks = [place[item] for item in one if item in place]
    if len(ranks) < 2:
        return None
    signs = [1 if first < second else -1 for first, second in combinations(ranks, 2)]
    return sum(signs) / len(signs)


def ranking(body: Any) -> tuple[str, ...] | None:
    """Return the ids an answer of one of the functions ranks, None where it ranks nothing."""
    if not isinstance(body, dict):
        return None
    items = body.get("items", body.get("recommendations"))
    if items is None:
        history = body.get("history")
        return None if history is None else tuple(history)
    return tuple(item["item_id"] for item in items)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
