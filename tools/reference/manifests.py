"""The tables of the manifests: overlays, components, and the scaling of each Service."""

import re
from pathlib import Path

import yaml

from tools.reference.tables import NONE, table

KNATIVE = Path(__file__).parents[2] / "knative"

_PREFIX = "autoscaling.knative.dev/"
_FIELDS = ("containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds")
_SENTENCES = 3


def tables() -> dict[str, str]:
    """Return the tables by name."""
    return {"overlays": _folders("overlays"), "components": _folders("components"), "scaling": _scaling()}


def _folders(kind: str) -> str:
    paths = sorted(KNATIVE.glob(f"{kind}/*/kustomization.yaml"))
    return table((kind[:-1], "content"), ((f"`{path.parent.name}`", _comment(path)) for path in paths))


def _comment(path: Path) -> str:
    """Return the first sentences of the comment that the file begins with."""
    lines = path.read_text("utf-8").splitlines()
    count = next(n for n, line in enumerate(lines) if not line.startswith("# "))
    if count == 0:
        raise ValueError(f"{path}: begin with a comment that says what the {path.parent.parent.name} are for")
    text = " ".join(line.removeprefix("# ") for line in lines[:count])
    return " ".join(re.split(r"(?<=[.)]) (?=[A-Z(`])", text)[:_SENTENCES])


def _scaling() -> str:
    bodies = [yaml.safe_load(path.read_text("utf-8")) for path in sorted(KNATIVE.glob("base/*.yaml"))]
    templates = {b["metadata"]["name"]: b["spec"]["template"] for b in bodies if b.get("kind") == "Service"}
    annotations = [template["metadata"]["annotations"] for template in templates.values()]
    keys = sorted({key for values in annotations for key in values if key.startswith(_PREFIX)})
    rows = [[f"`{key.removeprefix(_PREFIX)}`", *(values.get(key, NONE) for values in annotations)] for key in keys]
    rows += [[f"`{field}`", *(str(template["spec"][field]) for template in templates.values())] for field in _FIELDS]
    return table(("annotation or field", *templates), rows)
