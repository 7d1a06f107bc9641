"""Which part may import which: the arrows of docs/architecture.md."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A part, where it lives, and which other parts it may import.
PARTS = {
    # Floor 1: how an HTTP function behaves. Nothing of recommendations, nothing of Knative.
    "chassis": ("src/chassis", set()),
    # Floor 2: recommendations, and Kubernetes objects.
    "recsys": ("src/recsys", {"chassis"}),
    "kubeyaml": ("src/kubeyaml", set()),
    # Floor 3: one job each.
    "localkn": ("src/localkn", {"chassis", "kubeyaml"}),
    # A process of the platform, which talks to it as its verbs do.
    "knbroker": ("src/knbroker", {"chassis", "kubeyaml", "localkn"}),
    # Shows what localkn runs; localkn starts it as a program and knows nothing of what it shows.
    "dashboard": ("src/dashboard", {"chassis", "localkn", "recsys"}),
    "functions.extract_features": ("functions/extract_features", {"chassis", "recsys"}),
    "functions.rank_items": ("functions/rank_items", {"chassis", "recsys"}),
    "functions.recommend": ("functions/recommend", {"chassis", "recsys"}),
    "offline": ("offline", {"chassis", "recsys"}),
    # Another domain on the same chassis: it proves that the chassis knows nothing of recommendations.
    "examples": ("examples", {"chassis"}),
    # The composition of all three in one process: no function knows of it.
    "fused": (
        "fused",
        {"chassis", "recsys", "functions.extract_features", "functions.rank_items", "functions.recommend"},
    ),
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they lead"
            yield str(node.module)


def part_of(module: str) -> str | None:
    if module.startswith("functions."):
        return ".".join(module.split(".")[:2])
    top = module.partition(".")[0]
    return top if top in {*PARTS, "functions", "tools", "tests", "loadtests"} else None


@pytest.mark.parametrize("part", PARTS)
def test_only_allowed_arrows_exist(part):
    """A part imports itself and what its line allows, nothing else of the project."""
    folder, allowed = PARTS[part]
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    arrows = {(str(path.relative_to(ROOT)), part_of(module)) for path in files for module in imports(path)}
    assert [arrow for arrow in arrows if arrow[1] not in {None, part, *allowed}] == []


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
