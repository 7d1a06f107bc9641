"""
The part of kustomize that manifests of Knative Services need, so that a user need not install kustomize.

Any field that is not in `_KNOWN` is refused by name, not skipped; `kubectl kustomize DIR > FILE` gives a
file that can be run instead.
"""

import base64
import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from kubeyaml.documents import parse_documents, read_documents
from kubeyaml.errors import ManifestError
from kubeyaml.naming import KNOWN_OF_SERVICES, name_by_content
from kubeyaml.patches import MERGE_KEYS, SERVING, apply_patch
from kubeyaml.resources import Resource, read_file

_NAMES: Final = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_OPTIONS: Final = {"disableNameSuffixHash": None}
_GENERATOR: Final = [
    dict.fromkeys(("name", "namespace", "behavior", "literals", "files", "type")) | {"options": _OPTIONS}
]
_KNOWN: Final = {
    **dict.fromkeys(("apiVersion", "kind", "metadata", "namespace", "resources", "components")),
    "patches": [
        {"target": dict.fromkeys(("group", "version", "kind", "name", "namespace")), "patch": None, "path": None}
    ],
    "configMapGenerator": _GENERATOR,
    "secretGenerator": _GENERATOR,
    "generatorOptions": _OPTIONS,
    "images": [dict.fromkeys(("name", "newName", "newTag", "digest"))],
    "labels": [dict.fromkeys(("pairs", "includeSelectors"))],
    "configurations": None,
    "openapi": {"path": None},
}
_MOST: Final = 1000
"""Kustomizations in one build: a few small ones that include each other twice would come to billions."""

_MERGE_KEY: Final = "x-kubernetes-patch-merge-key"
_KINDS: Final = "x-kubernetes-group-version-kind"
_CONFIGURATION: Final = {"nameReference": [dict.fromkeys(("kind", "version", "fieldSpecs"))]}
_CLUSTER_SCOPED: Final = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "PriorityClass"}


def kustomization(directory: Path) -> Path | None:
    """Return the kustomization file of *directory*; None if it has none."""
    return next((directory / name for name in _NAMES if (directory / name).is_file()), None)


def build(directory: Path) -> list[Resource]:
    """
    Build the kustomization in *directory*.

    Raises:
        ManifestError: A file is missing, or a field is beyond the part understood here.
    """
    resources = _Resources()
    _apply(directory, resources, within=(), count=iter(range(_MOST)))
    name_by_content(resources, resources.hashed, resources.references)
    return [Resource(resource.body, resource.source) for resource in resources]


class _Resources(list[Resource]):
    """
    The objects built so far.

    Attributes:
        hashed: Kind and name of the objects that get a hash in their name.
        references: Kind, and path in a Knative Service, of further fields that hold such names.
        merge_services: Whether a schema tells how to merge the lists of a Knative Service.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hashed: set[tuple[str, str]] = set()
        self.references = set(KNOWN_OF_SERVICES)
        self.merge_services = False

    def take(self, other: "_Resources") -> None:
        """Add the objects of another kustomization."""
        self += [Resource(copy.deepcopy(resource.body), resource.source) for resource in other]
        self.hashed |= other.hashed
        self.references |= other.references
        self.merge_services |= other.merge_services


def _apply(directory: Path, resources: _Resources, *, within: Sequence[Path], count: Iterator[int]) -> None:
    """
    Apply the kustomization or component in *directory* to *resources*.

    Args:
        directory: The directory of the kustomization.
        resources: The objects built so far.
        within: The kustomizations that led here.
        count: Counts the kustomizations of the build, and ends if there are too many.
    """
    file = kustomization(directory)
    if file is None:
        raise ManifestError([f"{directory}: no kustomization.yaml in this directory"])
    root = directory.resolve()
    # kustomize refuses this too: a kustomization whose directory contains the other would include it again.
    if any(other.is_relative_to(root) for other in within):
        raise ManifestError([f"{file}: a kustomization includes itself or one that contains it"])
    if next(count, None) is None:
        raise ManifestError([f"{file}: more than {_MOST} kustomizations in one build"])
    content = _mapping(file)
    if unknown := [f"{file}: {field}: is not understood here" for field in _unknown(content, _KNOWN, path="")]:
        raise ManifestError(unknown)
    try:
        _accumulate(file, content, resources, partial(_apply, within=[*within, root], count=count))
    except (LookupError, TypeError, ValueError, OSError, AttributeError) as error:
        raise ManifestError([f"{file}: {error}"]) from error


def _mapping(file: Path) -> dict[str, Any]:
    content: Any = next(iter(read_documents(file)), {})
    if not isinstance(content, dict):
        raise ManifestError([f"{file}: must be a mapping"])
    return content


def _unknown(content: Any, known: Any, *, path: str) -> Iterator[str]:
    """Yield the fields of *content* that are not *known*, and those that must be a list or a mapping and are not."""
    if known is None or content is None:
        return
    if isinstance(known, list) and isinstance(content, list):
        for item in content:
            yield from _unknown(item, known[0], path=path)
    elif isinstance(known, list) or not isinstance(content, dict):
        yield path
    else:
        for key, value in content.items():
            at = f"{path}.{key}" if path else key
            if key in known:
                yield from _unknown(value, known[key], path=at)
            else:
                yield at


def _accumulate(
    file: Path, content: Mapping[str, Any], resources: _Resources, include: Callable[[Path, _Resources], None]
) -> None:
    for entry in content.get("resources") or ():
        found = _Resources()
        if (file.parent / entry).is_dir():
            include(file.parent / entry, found)
        else:
            found += read_file(_own_file(file.parent, entry))
        resources.take(found)
    if schema := content.get("openapi"):
        resources.merge_services |= _describes_services(_own_file(file.parent, schema["path"]))
    for entry in content.get("configurations") or ():
        resources.references |= _references(_own_file(file.parent, entry))
    for kind, field in (("ConfigMap", "configMapGenerator"), ("Secret", "secretGenerator")):
        for entry in content.get(field) or ():
            options = (content.get("generatorOptions") or {}) | (entry.get("options") or {})
            _generate(kind, entry, resources, file=file, hashed=not options.get("disableNameSuffixHash"))
    for entry in content.get("components") or ():
        include(file.parent / entry, resources)
    for entry in content.get("patches") or ():
        _patch(entry, resources, root=file.parent)
    for resource in resources:
        _transform(resource.body, content)


def _own_file(root: Path, path: str) -> Path:
    """
    Return a file that a kustomization names.

    Raises:
        ValueError: *path* is outside *root* (kustomize's load restrictor), or is not a regular file.
    """
    file = root / path
    if not file.is_file():
        raise ValueError(f"{path}: No such file")
    if not file.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{path}: is not in or below {root}")
    return file


def _generate(kind: str, entry: Mapping[str, Any], resources: _Resources, *, file: Path, hashed: bool) -> None:
    def encoded(value: bytes) -> str:
        return base64.b64encode(value).decode() if kind == "Secret" else value.decode()

    data = {}
    for literal in entry.get("literals") or ():
        key, _, value = literal.partition("=")
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        data[key] = encoded((value[1:-1] if quoted else value).encode())
    for spec in entry.get("files") or ():
        key, _, path = spec.rpartition("=")
        data[key or Path(path).name] = encoded(_own_file(file.parent, path).read_bytes())
    if entry.get("behavior", "create") == "create":
        if hashed:
            resources.hashed.add((kind, entry["name"]))
        metadata = {field: entry[field] for field in ("name", "namespace") if field in entry}
        body = {"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": data}
        resources.append(
            Resource(body | ({"type": entry.get("type", "Opaque")} if kind == "Secret" else {}), str(file))
        )
        return
    existing = next((r.body for r in resources if (r.kind, r.name) == (kind, entry["name"])), None)
    if existing is None:
        raise ValueError(f"there is no {kind} {entry['name']} to {entry['behavior']}")
    existing["data"] = ((existing.get("data") or {}) if entry["behavior"] == "merge" else {}) | data


def _patch(entry: Mapping[str, Any], resources: _Resources, *, root: Path) -> None:
    text = entry["patch"] if "patch" in entry else _own_file(root, entry["path"]).read_text("utf-8")
    patch = next(iter(parse_documents(text)), None)
    apply_patch(patch, resources, target=entry.get("target"), merge_services=resources.merge_services)


def _transform(body: dict[str, Any], content: Mapping[str, Any]) -> None:
    metadata, namespace = body["metadata"], content.get("namespace")
    if namespace and body["kind"] not in _CLUSTER_SCOPED:
        metadata["name" if body["kind"] == "Namespace" else "namespace"] = namespace
        for subject in body.get("subjects") or ():
            if subject["kind"] == "ServiceAccount":
                subject["namespace"] = namespace
    for entry in content.get("labels") or ():
        if entry.get("includeSelectors"):
            raise ValueError("labels: includeSelectors would put a selector into a Knative Service")
        metadata["labels"] = (metadata.get("labels") or {}) | entry["pairs"]
    for entry in content.get("images") or ():
        _rename_images(body, entry)


def _rename_images(node: Any, entry: Mapping[str, str]) -> None:
    """Rename images in every list of containers at any place, as kustomize's legacy image filter does."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if key in {"containers", "initContainers"}:
            for container in value:
                container["image"] = _renamed(container["image"], entry)
        _rename_images(value, entry)


def _renamed(image: str, entry: Mapping[str, str]) -> str:
    match = re.fullmatch(r"(.+?)(:[\w][\w.-]*)?(@.+)?", image)
    if match is None or match[1] != entry["name"]:
        return image
    name, version = entry.get("newName", match[1]), (match[2] or "") + (match[3] or "")
    if "newTag" in entry:
        version = f":{entry['newTag']}"
    return name + (f"@{entry['digest']}" if "digest" in entry else version)


def _references(file: Path) -> set[tuple[str, str]]:
    """Read a file of `configurations`: further places in a Knative Service where names of generated objects stand."""
    content = _mapping(file)
    if unknown := list(_unknown(content, _CONFIGURATION, path="")):
        raise ValueError(f"{file}: {', '.join(unknown)}: is not understood here")
    return {
        (entry["kind"], spec["path"])
        for entry in content.get("nameReference") or ()
        for spec in entry["fieldSpecs"]
        if (spec["group"], spec["kind"]) == ("serving.knative.dev", "Service")
    }


def _describes_services(file: Path) -> bool:
    """
    Tell whether a schema describes Knative Services.

    Raises:
        ValueError: It has other keys for the lists of a pod than the ones understood here.
    """
    definitions = json.loads(file.read_text("utf-8"))["definitions"].values()
    fields = {name: field for each in definitions for name, field in (each.get("properties") or {}).items()}
    keys = {name: field[_MERGE_KEY] for name, field in fields.items() if _MERGE_KEY in field}
    if unknown := [name for name, key in keys.items() if MERGE_KEYS.get(name) != key]:
        raise ValueError(f"{file}: {', '.join(unknown)}: this merge key is not understood here")
    return any(kind["group"] == SERVING for each in definitions for kind in each.get(_KINDS) or ())
