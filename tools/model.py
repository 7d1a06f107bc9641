"""The verbs of `./run.sh` that `offline` serves: train and evaluate."""

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from offline import train as training
from offline.delivery import parse_target
from offline.evaluation import logged as on_logged
from offline.evaluation import verb
from offline.inputs import DataOptions
from offline.reading.columns import parse_mapping
from offline.state import CURRENT
from recrank.places import PlaceError
from recsys.declaration.reader import DeclarationError, read_declaration


def train(*, store: str | None = None, from_store: bool = False, **options: Any) -> int:
    """Train; return the exit status."""
    try:
        data, others = _split(options)
        others["to"] = parse_target(others["to"]) if others["to"] else None
    except (DeclarationError, PlaceError) as error:
        print(error, file=sys.stderr)
        return 1
    return training.run(training.TrainingPlan(data, (store or CURRENT) if from_store else None, **others))


def evaluate(
    *,
    logged: str | None,
    candidate: Path | None,
    kind: list[str] | None,
    as_json: bool,
    report: Path | None,
    plot: Path | None,
    **options: Any,
) -> int:
    """Evaluate on held-out items, or on a log of lists; return the exit status."""
    try:
        # An evaluation takes up to an hour, so a faulty place for its results ends it before it begins.
        for folder in ([report] if report else []) + ([plot.parent] if plot else []):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"{error.filename}: cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    if logged:
        state_dir: Path = options["state_dir"]
        return on_logged.run(
            logged, candidate=candidate, kinds=kind or (), as_json=as_json, report=report, state_dir=state_dir
        )
    try:
        data, others = _split(options)
    except DeclarationError as error:
        print(error, file=sys.stderr)
        return 1
    return verb.run(verb.EvaluationPlan(data, **others), as_json=as_json, report=report, plot=plot)


def _split(options: dict[str, Any]) -> tuple[DataOptions, dict[str, Any]]:
    """Return the options that describe the data, and the others."""
    others = {name.strip("_"): value for name, value in options.items()}
    if path := others.pop("declaration"):
        others["declaration"] = read_declaration(path)
    others["map"] = parse_mapping(others["map"])
    return DataOptions(
        **{each.name: others.pop(each.name) for each in fields(DataOptions) if each.name in others}
    ), others
