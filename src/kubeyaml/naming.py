"""
Names of generated ConfigMaps and Secrets that end in a hash of their content, as kustomize makes them.

Source: kubernetes-sigs/kustomize api/hasher/hasher.go (what is hashed, and how it is written).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from kubeyaml.resources import Resource

Place = tuple[str, str]

# Fields of other objects that hold such a name.
_REFERENCES: Final = {
    "ConfigMap": {"configMapRef/name", "configMapKeyRef/name", "configMap/name"},
    "Secret": {"secretRef/name", "secret/secretName", "secretKeyRef/name"},
}
KNOWN_OF_SERVICES: Final = frozenset({("Secret", "spec/template/spec/containers/env/valueFrom/secretKeyRef/name")})
"""Kind and path of what kustomize knows of a Knative Service by itself; `configurations` tells it of more."""

# kustomize replaces these characters, so that a hash spells no word.
_LETTERS: Final = str.maketrans("013ae", "ghkmt")


def name_by_content(
    resources: Iterable[Resource], hashed: AbstractSet[tuple[str, str]], references: AbstractSet[Place]
) -> None:
    """
    Rename the objects in *hashed* in place, and update the references to them.

    Args:
        resources: All objects of a build.
        hashed: Kind and name of the objects that are named by their content.
        references: Kind, and path in a Knative Service, of the fields that hold such names.
    """
    resources = list(resources)
    names = {}
    for resource in resources:
        if (resource.kind, resource.name) in hashed:
            name = f"{resource.name}-{suffix(resource.body)}"
            names[resource.kind, resource.name] = resource.body["metadata"]["name"] = name
    for resource in resources:
        _rename(resource.body, names, known=references if resource.is_service else None, path="")


def suffix(body: Mapping[str, Any]) -> str:
    """Return the hash of the content of a ConfigMap or Secret, without its name: ten characters."""
    fields = {"kind": body["kind"], "name": "", "data": body.get("data") or ""}
    fields |= {"type": body["type"]} if body["kind"] == "Secret" else {}
    # As Go writes JSON: sorted, without spaces, and so that HTML could hold it.
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return hashlib.sha256(text.encode()).hexdigest()[:10].translate(_LETTERS)


def _rename(node: Any, names: Mapping[Place, str], *, known: AbstractSet[Place] | None, path: str) -> None:
    """Rename references below *node*: at the places in *known*, or at every known kind of reference if None."""
    if isinstance(node, list):
        for item in node:
            _rename(item, names, known=known, path=path)
    elif isinstance(node, dict):
        for key, value in node.items():
            at = f"{path}/{key}" if path else key
            for kind, ends in _REFERENCES.items():
                refers = (kind, at) in known if known is not None else "/".join(at.split("/")[-2:]) in ends
                if refers and isinstance(value, str):
                    node[key] = names.get((kind, value), value)
            _rename(value, names, known=known, path=at)
