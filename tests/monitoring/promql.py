"""The metrics in a query, and the files of knative/monitoring."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from kubeyaml.documents import read_trusted

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "knative/monitoring"

_KEYWORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset"}
_NO_METRICS = re.compile(
    r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)'
)


def metrics_of(query: str) -> set[str]:
    """Return the names in *query* that are not functions, labels or keywords."""
    bare = _NO_METRICS.sub(" ", query)
    return {
        name for name in re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\s*\()(?![\w:])", bare) if name not in _KEYWORDS
    }


@cache
def rules() -> list[dict[str, Any]]:
    """Return all rules. Tests do not change them."""
    groups = read_trusted(MONITORING / "rules.yaml")["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def panels() -> Iterator[tuple[str, str]]:
    """Yield every query of the dashboard with the title of its panel."""
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
