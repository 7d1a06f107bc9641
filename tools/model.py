"""The verbs of `./run.sh` that `offline` serves: train and evaluate."""

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from offline import train as training
from offline.evaluation import verb
from offline.loading import DataOptions
from offline.reading.columns import parse_mapping
from recsys.declaration.reading import DeclarationError, read_declaration


def train(*, store: str | None = None, from_store: bool = False, **options: Any) -> int:
    """Train; return the exit status."""
    try:
        data, others = _split(options)
    except DeclarationError as error:
        print(error, file=sys.stderr)
        return 1
    return training.run(training.Plan(data, (store or training.CURRENT) if from_store else None, **others))


def evaluate(*, as_json: bool, report: Path | None, plot: Path | None, **options: Any) -> int:
    """Evaluate; return the exit status."""
    try:
        data, others = _split(options)
    except DeclarationError as error:
        print(error, file=sys.stderr)
        return 1
    return verb.run(verb.Plan(data, **others), as_json=as_json, report=report, plot=plot)


def _split(options: dict[str, Any]) -> tuple[DataOptions, dict[str, Any]]:
    """Return the options that describe the data, and the others."""
    others = {name.strip("_"): value for name, value in options.items()}
    if path := others.pop("declaration"):
        others["declaration"] = read_declaration(path)
    others["map"] = parse_mapping(others["map"]) if others["map"] else {}
    return DataOptions(
        **{each.name: others.pop(each.name) for each in fields(DataOptions) if each.name in others}
    ), others
