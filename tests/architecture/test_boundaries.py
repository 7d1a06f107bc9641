"""Rules of the structure that no import shows; `./run.sh check` holds the imports to the floors of pyproject.toml."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["extract_features", "rank_items", "recommend"])
def test_a_main_only_joins_parts(name):
    """A function's main.py is wiring: at most sixty lines."""
    assert len((ROOT / "functions" / name / "main.py").read_text().splitlines()) <= 60


@pytest.mark.parametrize("name", ["extract_features", "rank_items", "recommend"])
def test_a_function_needs_only_its_own_extra(name):
    """Third-party modules a function reaches are in its lock file, the numeric ones only in rank_items'."""
    numeric = {"numpy", "safetensors", "threadpoolctl", "scipy"}
    locked = {
        line.partition("==")[0] for line in (ROOT / f"requirements/{name.replace('_', '-')}.txt").read_text().split()
    }
    assert (numeric & locked == numeric - {"scipy"}) if name == "rank_items" else not numeric & locked
    assert "functions-framework" in locked
