"""The figures of an experiment, from its analysis and the health of its arms, and their lines of text."""

import math
from collections.abc import Iterator, Sequence

from offline.experiments.analysis import Analysis, ArmResult
from offline.experiments.health import ArmHealth, reasons
from recsys.experiments.ledger import ArmFigures, ExperimentFigures


def summarise(analysis: Analysis, healths: Sequence[ArmHealth], *, followed_us: int, at_us: int) -> ExperimentFigures:
    """Return the figures of an experiment; *healths* has its arms in the same order."""
    warnings = reasons(healths)
    return ExperimentFigures(
        analysis.experiment,
        at_us,
        followed_us,
        tuple(
            _arm(result, health, warning=warnings.get(health.name, ""))
            for result, health in zip(analysis.arms, healths, strict=True)
        ),
        analysis.waiting,
        analysis.adjusted,
        analysis.mismatch,
        analysis.switched,
        analysis.is_sound,
    )


def _arm(result: ArmResult, health: ArmHealth, *, warning: str) -> ArmFigures:
    sample, change = result.sample, result.change
    return ArmFigures(
        result.name,
        sample.users,
        None if math.isnan(sample.mean) else sample.mean,
        change.value if change else None,
        change.low if change else None,
        change.high if change else None,
        "" if result.lift is None else "better" if result.is_better else "worse" if result.is_worse else "undecided",
        health.lists,
        health.failed,
        health.p99_s,
        warning,
    )


def describe(figures: ExperimentFigures) -> list[str]:
    """Return the figures as lines."""
    counted = f"{figures.waiting} users are still followed and do not count yet, {figures.adjusted} have a history"
    return [
        f"{figures.name}: actions per list while a user is followed ({counted})",
        *map(_actions, figures.arms),
        *_doubts(figures),
        *map(_health, figures.arms),
        *(f"  warning: {arm.name} must stop: {arm.warning}" for arm in figures.arms if arm.warning),
    ]


def _actions(arm: ArmFigures) -> str:
    line = f"  {arm.name}: {arm.users} users"
    line += "; no user counts yet" if arm.mean is None else f", {arm.mean:.4f}"
    if arm.change is not None:
        line += f", {arm.change:+.1%} [{arm.low:+.1%}, {arm.high:+.1%}] (valid at every look): {arm.verdict}"
    elif arm.verdict:
        line += f": {arm.verdict}; the mean of the control may be 0, so the change has no interval"
    return line


def _doubts(figures: ExperimentFigures) -> Iterator[str]:
    if not figures.sound:
        yield (
            f"  warning: users are not in the arms as declared (p {figures.mismatch:.1g}, {figures.switched} in two "
            "arms); do not trust the figures"
        )


def _health(arm: ArmFigures) -> str:
    slowest = "-" if arm.p99_s is None else f"{arm.p99_s * 1000:.0f} ms"
    return f"  {arm.name}: {arm.lists} lists, {arm.failed:.2%} failed, p99 {slowest}"
