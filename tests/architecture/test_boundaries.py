"""Rules of the structure that concern no imports; `./run.sh check` checks the imports with pyproject.toml's layers."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["extract_features", "rank_items", "recommend"])
def test_a_main_only_connects_parts(name):
    """A function's main.py has at most sixty lines."""
    assert len((ROOT / "functions" / name / "main.py").read_text().splitlines()) <= 60


@pytest.mark.parametrize("name", ["extract_features", "rank_items", "recommend"])
def test_a_function_locks_only_its_own_packages(name):
    """Only the lock file of rank_items contains the numeric packages, and every lock file the framework."""
    numeric = {"numpy", "safetensors", "threadpoolctl", "scipy"}
    locked = {
        line.partition("==")[0] for line in (ROOT / f"requirements/{name.replace('_', '-')}.txt").read_text().split()
    }
    assert (numeric & locked == numeric - {"scipy"}) if name == "rank_items" else not numeric & locked
    assert "functions-framework" in locked
