"""
The verbs of `./run.sh` that `offline` serves: train and evaluate.

Both are programs that work without `tools`, so the verbs hand them the options as words.
"""

from typing import Any

from offline.evaluation.__main__ import main as run_evaluation
from offline.train import main as run_training


def train(*, store: str | None = None, from_store: bool = False, **options: Any) -> int:
    """Train; return the exit status."""
    return run_training([*_words(options), *(["--from-store", *([store] if store else [])] if from_store else [])])


def evaluate(**options: Any) -> int:
    """Evaluate; return the exit status."""
    return run_evaluation(_words(options))


def _words(options: dict[str, Any]) -> list[str]:
    named = {name.removeprefix("as_").strip("_").replace("_", "-"): value for name, value in options.items()}
    flags = [f"--{name}" for name, value in named.items() if value is True]
    valued = {name: value for name, value in named.items() if value and value is not True}
    return flags + [f"--{name}={value}" for name, value in valued.items()]
