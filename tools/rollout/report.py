"""The report of a rollout: Markdown for people, JSON for programs."""

import datetime as dt
import json
from dataclasses import asdict
from pathlib import Path

from tools.rollout.comparison import Comparison
from tools.rollout.conductor import RolloutOutcome
from tools.rollout.decisions import CandidateLimits

_COLUMNS = ("step", "requests", "failed", "p50 ms", "p99 ms", "present p50", "present p99", "live", "live failed",
            "live p99 ms", "overlap", "correlation")  # fmt: skip


def write_report(folder: Path, outcome: RolloutOutcome, limits: CandidateLimits) -> Path:
    """Write the Markdown and the JSON below *folder*; return the path of the Markdown."""
    now = dt.datetime.now(dt.UTC)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{outcome.service}-{now:%Y%m%dT%H%M%SZ}.md"
    path.write_text(as_markdown(outcome, limits, now=now))
    told = {"time": now.isoformat(timespec="seconds"), "limits": asdict(limits), **asdict(outcome)}
    path.with_suffix(".json").write_text(json.dumps(told, indent=2) + "\n")
    return path


def as_markdown(outcome: RolloutOutcome, limits: CandidateLimits, *, now: dt.datetime) -> str:
    """Return the report."""
    verdict = "promoted" if outcome.promoted else "rolled back"
    reasons = "".join(f"- {reason}\n" for reason in outcome.reasons) or "- every limit was kept at every step\n"
    asked = "\n".join(f"    {command}" for command in outcome.commands)
    rows = "".join(f"| {' | '.join(_row(step))} |\n" for step in outcome.seen)
    return (
        f"# Rollout of {outcome.service}: {verdict}\n\n"
        f"{now:%Y-%m-%d %H:%M} UTC, {outcome.seconds:.0f} s. From {outcome.current} to {outcome.candidate or 'none'}; "
        f"{(outcome.candidate if outcome.promoted else outcome.current)} serves now.\n\n"
        f"## Why\n\n{reasons}\n"
        f"## Limits\n\n{_limits(limits)}\n"
        f"## Steps\n\n| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}\n{rows}\n"
        "Shadow requests went to both revisions by tag, the same requests to each. Live requests went to the Service;\n"
        "the table counts those that the candidate answered.\n\n"
        f"## What was done\n\n{asked}\n"
    )


def _limits(limits: CandidateLimits) -> str:
    told = [f"error rate at most {limits.max_error_rate:.2%}", f"median at most {limits.max_slowdown:g} times as long"]
    if limits.max_p99_ms is not None:
        told.append(f"p99 at most {limits.max_p99_ms:g} ms")
    if limits.min_overlap is not None:
        told.append(f"overlap at least {limits.min_overlap:g}")
    if limits.min_correlation is not None:
        told.append(f"rank correlation at least {limits.min_correlation:g}")
    return "".join(f"- {each}\n" for each in told)


def _row(step: Comparison) -> list[str]:
    return [
        f"{step.share} %", str(step.candidate.requests), str(step.candidate.faults),
        f"{step.candidate.p50_ms:.1f}", f"{step.candidate.p99_ms:.1f}",
        f"{step.current.p50_ms:.1f}", f"{step.current.p99_ms:.1f}",
        str(step.live.requests), str(step.live.faults), f"{step.live.p99_ms:.1f}",
        *("-" if value is None else f"{value:.3f}" for value in (step.overlap, step.correlation)),
    ]  # fmt: skip
