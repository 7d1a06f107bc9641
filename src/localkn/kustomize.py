"""
The part of kustomize that manifests of Knative Services need, so that nothing has to be installed.

Understood: resources, patches (JSON 6902 with a target), configMapGenerator and secretGenerator (literals and
files, without name suffix), images, namespace, labels. Any other field is refused by name rather than skipped:
`kubectl kustomize DIR > FILE` gives a file that can be run instead.
"""

import base64
import copy
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from localkn.errors import ManifestError
from localkn.manifests import KUSTOMIZATION_NAMES, Resource, parse_yaml, read_documents, read_file

_FIELDS = {
    "apiVersion", "kind", "metadata", "resources", "patches", "configMapGenerator", "secretGenerator",
    "generatorOptions", "images", "namespace", "labels",
}  # fmt: skip
_GENERATOR_FIELDS = {"name", "namespace", "behavior", "literals", "files", "options", "type"}
_CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "PriorityClass", "PersistentVolume"}


def build(directory: Path) -> list[Resource]:
    """
    Build the kustomization in *directory*.

    Raises:
        ManifestError: A file is missing, or a field is beyond the part understood here.
    """
    file = next((directory / name for name in KUSTOMIZATION_NAMES if (directory / name).is_file()), None)
    if file is None:
        raise ManifestError([f"{directory}: no kustomization.yaml in this directory"])
    return _Kustomization(file).build()


class _Kustomization:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._root = file.parent
        documents = read_documents(file)
        self._content: dict[str, Any] = documents[0] if documents else {}
        self._known(self._content, _FIELDS, at="")

    def build(self) -> list[Resource]:
        resources = [resource for entry in self._entries("resources") for resource in self._resources(entry)]
        for kind in ("ConfigMap", "Secret"):
            for entry in self._entries(f"{kind[0].lower()}{kind[1:]}Generator"):
                resources = self._generate(kind, entry, resources)
        for entry in self._entries("patches"):
            resources = self._patch(entry, resources)
        return [Resource(self._transform(copy.deepcopy(r.body)), r.source) for r in resources]

    def _entries(self, field: str) -> list[Any]:
        return list(self._content.get(field) or [])

    def _fault(self, field: str, message: str) -> ManifestError:
        return ManifestError([f"{self._file}: {field}: {message}"])

    def _known(self, given: Mapping[str, Any], known: set[str], *, at: str) -> None:
        if beyond := sorted(set(given) - known):
            raise self._fault(f"{at}{beyond[0]}", "is not understood here; run `kubectl kustomize` yourself instead")

    def _resources(self, entry: str) -> list[Resource]:
        path = self._root / entry
        return build(path) if path.is_dir() else read_file(path)

    def _generate(self, kind: str, entry: dict[str, Any], resources: list[Resource]) -> list[Resource]:
        field = f"{kind[0].lower()}{kind[1:]}Generator[{entry.get('name')}]"
        self._known(entry, _GENERATOR_FIELDS, at=f"{field}.")
        options = (self._content.get("generatorOptions") or {}) | (entry.get("options") or {})
        self._known(options, {"disableNameSuffixHash"}, at=f"{field}.options.")
        behavior = entry.get("behavior", "create")
        if behavior == "create" and not options.get("disableNameSuffixHash"):
            raise self._fault(f"{field}.options.disableNameSuffixHash", "must be true")
        data = dict(self._generated(entry, kind=kind))
        existing = next((r for r in resources if r.kind == kind and r.name == entry["name"]), None)
        if behavior == "create":
            metadata = {field: entry[field] for field in ("name", "namespace") if field in entry}
            body = {"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": data}
            if kind == "Secret":
                body["type"] = entry.get("type", "Opaque")
            return [*resources, Resource(body, str(self._file))]
        if existing is None:
            raise self._fault(field, f"there is no {kind} of that name to {behavior}")
        kept = existing.body.get("data") or {} if behavior == "merge" else {}
        changed = Resource(existing.body | {"data": {**kept, **data}}, existing.source)
        return [changed if r is existing else r for r in resources]

    def _generated(self, entry: dict[str, Any], *, kind: str) -> Iterator[tuple[str, str]]:
        for literal in entry.get("literals") or []:
            key, _, value = literal.partition("=")
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            yield key, self._encoded(kind, (value[1:-1] if quoted else value).encode())
        for spec in entry.get("files") or []:
            key, _, path = spec.rpartition("=")
            try:
                yield key or Path(path).name, self._encoded(kind, (self._root / path).read_bytes())
            except OSError as error:
                raise self._fault("files", f"{path}: {error.strerror}") from error

    @staticmethod
    def _encoded(kind: str, value: bytes) -> str:
        return base64.b64encode(value).decode() if kind == "Secret" else value.decode()

    def _patch(self, entry: dict[str, Any], resources: list[Resource]) -> list[Resource]:
        self._known(entry, {"target", "patch", "path"}, at="patches.")
        target = entry.get("target") or {}
        self._known(target, {"group", "version", "kind", "name", "namespace"}, at="patches.target.")
        text = entry["patch"] if "patch" in entry else (self._root / entry["path"]).read_text("utf-8")
        operations = _parsed(text)
        if not target or not isinstance(operations, list):
            raise self._fault("patches", "only JSON 6902 patches with a target are understood here")
        patched = []
        for resource in resources:
            if _matches(resource, target):
                body = copy.deepcopy(resource.body)
                for operation in operations:
                    self._operate(body, operation)
                resource = Resource(body, resource.source)  # noqa: PLW2901 - the patched one takes its place
            patched.append(resource)
        return patched

    def _operate(self, body: dict[str, Any], operation: dict[str, Any]) -> None:
        kind, path = operation.get("op"), str(operation.get("path", ""))
        if kind not in {"add", "replace", "remove", "test"}:
            raise self._fault("patches", f"operation {kind!r} is not understood here")
        try:
            _apply(body, kind, path, operation.get("value"))
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise self._fault("patches", f"{kind} {path} does not fit the object it is for") from error

    def _transform(self, body: dict[str, Any]) -> dict[str, Any]:
        metadata = body["metadata"]
        if namespace := self._content.get("namespace"):
            if body["kind"] == "Namespace":
                metadata["name"] = namespace
            elif body["kind"] not in _CLUSTER_SCOPED:
                metadata["namespace"] = namespace
        for entry in self._entries("labels"):
            self._known(entry, {"pairs", "includeSelectors"}, at="labels.")
            if entry.get("includeSelectors"):
                raise self._fault("labels.includeSelectors", "would put a selector into a Knative Service")
            metadata["labels"] = {**(metadata.get("labels") or {}), **entry["pairs"]}
        for entry in self._entries("images"):
            self._known(entry, {"name", "newName", "newTag", "digest"}, at="images.")
            _rename_images(body, entry)
        return body


def _parsed(text: str) -> Any:
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        return json.loads(text)


def _matches(resource: Resource, target: Mapping[str, str]) -> bool:
    """Target fields are anchored regular expressions, as in kustomize."""
    version = str(resource.body.get("apiVersion", "")).rpartition("/")[2]
    actual = {
        "group": resource.api_group, "version": version, "kind": resource.kind, "name": resource.name,
        "namespace": resource.namespace,
    }  # fmt: skip
    return all(re.fullmatch(pattern, actual[field]) for field, pattern in target.items())


def _apply(body: Any, kind: str, pointer: str, value: Any) -> None:
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    for part in parents:
        body = body[int(part)] if isinstance(body, list) else body[part]
    if isinstance(body, list) and kind == "add":
        body.insert(len(body) if last == "-" else int(last), value)
        return
    key: Any = int(last) if isinstance(body, list) else last
    if kind == "add":
        body[key] = value
    elif kind == "replace":
        body[key] = (body[key], value)[1]
    elif kind == "remove":
        del body[key]
    elif body[key] != value:
        raise ValueError(value)


def _rename_images(node: Any, entry: Mapping[str, str]) -> None:
    """Walk every list of containers, wherever it is, as kustomize's legacy image filter does."""
    if isinstance(node, list):
        for item in node:
            _rename_images(item, entry)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in {"containers", "initContainers"} and isinstance(value, list):
                for container in value:
                    container["image"] = _renamed(container.get("image", ""), entry)
            _rename_images(value, entry)


def _renamed(image: str, entry: Mapping[str, str]) -> str:
    match = re.fullmatch(r"(.+?)(:[\w][\w.-]*)?(@.+)?", image)
    if match is None or match[1] != entry["name"]:
        return image
    name = entry.get("newName", match[1])
    if "digest" in entry:
        return f"{name}@{entry['digest']}"
    if "newTag" in entry:
        return f"{name}:{entry['newTag']}"
    return name + (match[2] or "") + (match[3] or "")
