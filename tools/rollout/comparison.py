"""Computes from answers the figures that limits apply to. Pure."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recsys.agreement import correlation, overlap


@dataclass(frozen=True)
class TrialAnswer:
    """
    One answer, or the fault of a missing answer.

    Attributes:
        milliseconds: From sending to the end of the body.
        fault: The fault of the answer; None for a good one.
        ranking: The ranked ids, best first; None for an answer without a ranking.
        revision: The revision named in the answer; None if it names none.
    """

    milliseconds: float
    fault: str | None = None
    ranking: tuple[str, ...] | None = None
    revision: str | None = None


@dataclass(frozen=True)
class RolloutTrial:
    """The answers to one request: from both revisions by tag, and from the Service."""

    current: TrialAnswer
    candidate: TrialAnswer
    live: TrialAnswer


@dataclass(frozen=True)
class AnswerFigures:
    """
    Summary of a number of answers.

    Attributes:
        requests: Number of answers.
        faults: Number of answers with a fault, missing ones included.
        error_rate: Share of faults.
        p50_ms: Median of the good answers; 0 without good answers.
        p99_ms: 99th percentile of the good answers, by nearest rank.
    """

    requests: int
    faults: int
    error_rate: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Comparison:
    """
    The outcome of a step.

    Attributes:
        share: Percent of the traffic that the candidate had.
        current: Answers of the present revision, by tag.
        candidate: Answers of the candidate, by tag.
        live: Answers of the Service that came from the candidate.
        live_current: Answers of the Service that came from the present revision.
        overlap: Mean share of the present revision's top-k that is also in the candidate's; None without rankings.
        correlation: Mean Kendall correlation of common items; None if no two items are common.
        fault: Example of a fault of the candidate.
    """

    share: int
    current: AnswerFigures
    candidate: AnswerFigures
    live: AnswerFigures
    live_current: AnswerFigures
    overlap: float | None
    correlation: float | None
    fault: str | None


def compare(trials: Sequence[RolloutTrial], *, share: int, candidate: str) -> Comparison:
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


def is_its(answer: TrialAnswer, *, share: int, candidate: str) -> bool:
    """
    Tell whether a live *answer* counts as the candidate's.

    An answer that names no revision counts as the candidate's while the candidate has traffic.
    """
    return answer.revision == candidate or (answer.revision is None and share > 0)


def count_faults(trials: Sequence[RolloutTrial], *, share: int, candidate: str) -> int:
    """Return the number of the candidate's faults: by tag or live, the larger one."""
    by_name = sum(t.candidate.fault is not None for t in trials)
    live = sum(t.live.fault is not None and is_its(t.live, share=share, candidate=candidate) for t in trials)
    return max(by_name, live)


def figures(answers: Sequence[TrialAnswer]) -> AnswerFigures:
    """Summarise *answers*."""
    good = sorted(answer.milliseconds for answer in answers if answer.fault is None)
    faults = len(answers) - len(good)
    return AnswerFigures(
        requests=len(answers),
        faults=faults,
        error_rate=faults / len(answers) if answers else 0.0,
        p50_ms=statistics.median(good) if good else 0.0,
        p99_ms=good[math.ceil(0.99 * len(good)) - 1] if good else 0.0,
    )


def ranking(body: Any) -> tuple[str, ...] | None:
    """Return the ids that a function's answer ranks; None for an answer without a ranking."""
    if not isinstance(body, dict):
        return None
    items = body.get("items", body.get("recommendations"))
    if items is None:
        history = body.get("history")
        return None if history is None else tuple(history)
    return tuple(item["item_id"] for item in items)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
