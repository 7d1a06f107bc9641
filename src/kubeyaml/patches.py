"""
The patches of kustomize: JSON 6902, and strategic merges, which find an entry of a list by its name.

A strategic merge of a Knative Service needs a schema (`openapi`), because kustomize knows only the kinds of Kubernetes.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kubeyaml.resources import Resource

SERVING: Final = "serving.knative.dev"
MERGE_KEYS: Final = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
}
"""Lists of a pod whose entries a strategic merge finds, each with the field that identifies an entry."""


def apply_patch(
    patch: Any, resources: Sequence[Resource], *, target: Mapping[str, str] | None, merge_services: bool
) -> None:
    """
    Change the objects that a patch is for.

    Args:
        patch: A list of operations, or a part of an object.
        resources: The objects built so far.
        target: Regular expressions for the fields that identify an object; None for the object that *patch* names.
        merge_services: Whether a schema tells the keys of the lists in a Knative Service.

    Raises:
        ValueError: The patch does not fit, or is beyond the part understood here.
    """
    if isinstance(patch, list) and target:
        for resource in _matches(resources, target):
            for operation in patch:
                _operate(resource.body, operation)
        return
    if not isinstance(patch, dict):
        raise ValueError("patches: a patch is a mapping, or has a target and is a list of operations")  # noqa: TRY004 - a fault of the file
    found = _matches(resources, target or _identity(patch))
    if not found and not target:
        raise ValueError(f"patches: there is no {patch['kind']} {patch['metadata']['name']}")
    changes = {key: value for key, value in patch.items() if key not in {"apiVersion", "kind"}}
    if "metadata" in changes:
        changes["metadata"] = {key: value for key, value in changes["metadata"].items() if key != "name"}
    for resource in found:
        keys = MERGE_KEYS if merge_services or resource.api_group != SERVING else {}
        resource.body.update(_merged(resource.body, changes, keys))


def _identity(patch: Mapping[str, Any]) -> dict[str, str]:
    """Return the target of a patch that names its object."""
    group, _, _ = str(patch["apiVersion"]).rpartition("/")
    named = {"group": group, "kind": patch["kind"], "name": patch["metadata"]["name"]}
    return {field: re.escape(value) for field, value in named.items()}


def _matches(resources: Sequence[Resource], target: Mapping[str, str]) -> list[Resource]:
    """Return the objects that fit *target*: anchored regular expressions, as in kustomize."""

    def fields(resource: Resource) -> dict[str, str]:
        version = resource.body["apiVersion"].rpartition("/")[2]
        return {
            "group": resource.api_group, "version": version, "kind": resource.kind, "name": resource.name,
            "namespace": resource.namespace,
        }  # fmt: skip

    return [each for each in resources if all(re.fullmatch(text, fields(each)[name]) for name, text in target.items())]


def _merged(value: Any, patch: Any, keys: Mapping[str, str]) -> Any:
    """Return *value* with *patch* merged into it; null removes a field."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(value) if isinstance(value, dict) else {}
    for name, change in patch.items():
        if name.startswith("$"):
            raise ValueError(f"patches: {name}: is not understood here")
        if change is None:
            merged.pop(name, None)
        elif name in keys and isinstance(change, list):
            merged[name] = _merged_entries(merged.get(name) or [], change, key=keys[name], keys=keys)
        else:
            merged[name] = _merged(merged.get(name), change, keys)
    return merged


def _merged_entries(
    entries: Sequence[Mapping[str, Any]], changes: Sequence[Mapping[str, Any]], *, key: str, keys: Mapping[str, str]
) -> list[Any]:
    """Return the changed and the new entries, and then the others, as kustomize orders them."""
    present = {entry[key]: entry for entry in entries}
    changed = [_merged(present.pop(change[key], {}), change, keys) for change in changes]
    return [*changed, *present.values()]


def _operate(body: Any, operation: Mapping[str, Any]) -> None:
    kind, pointer = operation.get("op"), str(operation.get("path"))
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    try:
        for part in parents:
            body = body[int(part)] if isinstance(body, list) else body[part]
        key: Any = int(last) if isinstance(body, list) and last != "-" else last
        match kind:
            case "add" if isinstance(body, list):
                body.insert(len(body) if key == "-" else key, operation["value"])
            case "add":
                body[key] = operation["value"]
            case "replace":
                body[key] = (body[key], operation["value"])[1]
            case "remove":
                del body[key]
            case "test" if body[key] == operation["value"]:
                pass
            case "test":
                raise ValueError(f"it is {body[key]!r}")
            case _:
                raise ValueError("only add, replace, remove and test are understood here")
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"patches: {kind} {pointer}: {error!r}") from error
