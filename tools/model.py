"""
The verbs of `./run.sh` that `offline` serves: train and evaluate.

Training is a program that works without `tools`, so its verb hands it the options as words.
"""

from pathlib import Path
from typing import Any

from offline.evaluation import verb
from offline.loading import DataOptions
from offline.reading.columns import parse_mapping
from offline.train import main as run_training


def train(*, store: str | None = None, from_store: bool = False, **options: Any) -> int:
    """Train; return the exit status."""
    return run_training([*_words(options), *(["--from-store", *([store] if store else [])] if from_store else [])])


def evaluate(
    *,
    interactions: Path | None,
    items: Path | None,
    users: Path | None,
    format_: str,
    min_weight: float,
    map_: str | None,
    skip_faults: int,
    as_json: bool,
    report: Path | None,
    plot: Path | None,
    **options: Any,
) -> int:
    """Evaluate; return the exit status."""
    data = DataOptions(
        interactions, items, users, format_, min_weight, parse_mapping(map_) if map_ else {}, skip_faults
    )
    return verb.run(verb.Plan(data, **options), as_json=as_json, report=report, plot=plot)


def _words(options: dict[str, Any]) -> list[str]:
    named = {name.removeprefix("as_").strip("_").replace("_", "-"): value for name, value in options.items()}
    flags = [f"--{name}" for name, value in named.items() if value is True]
    valued = {name: value for name, value in named.items() if value and value is not True}
    return flags + [f"--{name}={value}" for name, value in valued.items()]
