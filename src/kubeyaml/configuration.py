"""The environment and the files that ConfigMaps and Secrets give a container."""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kubeyaml.errors import ManifestError
from kubeyaml.resources import Resource
from kubeyaml.templates import Template

_FILLED_BY_CLUSTERS = ("image", "serviceAccountToken", "downwardAPI")
_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")


class Configuration:
    """The ConfigMaps and Secrets of the manifests."""

    def __init__(self, resources: Sequence[Resource]) -> None:
        self._data = {
            (resource.kind, resource.name): _data(resource.body)
            for resource in resources
            if resource.kind in {"ConfigMap", "Secret"} and not resource.api_group
        }

    def data(self, kind: str, name: str) -> Mapping[str, bytes]:
        """Return the entries of an object, no entries if it is missing."""
        return self._data.get((kind, name), {})

    def missing(self, template: Template) -> Iterator[str]:
        """Return the name of each object or entry that *template* needs and the manifests lack."""
        for kind, reference, key in references(template):
            name, entries = reference.get("name", ""), self._data.get((kind, reference.get("name", "")))
            if reference.get("optional"):
                continue
            if entries is None:
                yield f"{kind} {name} is not in the manifests"
            elif key is not None and key not in entries:
                yield f"{kind} {name} has no entry {key!r}"

    def variables(self, template: Template) -> dict[str, str]:
        """Resolve envFrom and env, in this order, with `$(NAME)` expanded as Kubernetes does."""
        variables: dict[str, str] = {}
        for source in template.env_from:
            kind, reference = _object(source, "configMapRef", "secretRef")
            for key, value in self.data(kind, reference["name"]).items():
                variables[source.get("prefix", "") + key] = value.decode()
        for variable in template.env:
            if (origin := variable.get("valueFrom")) is None:
                variables[variable["name"]] = expand(variable.get("value") or "", variables)
                continue
            kind, reference = _object(origin, "configMapKeyRef", "secretKeyRef")
            if (entry := self.data(kind, reference["name"]).get(reference["key"])) is not None:
                variables[variable["name"]] = entry.decode()
        return variables

    def materialise(self, template: Template, directory: Path) -> dict[str, Path]:
        """
        Write the volumes of one instance under *directory*; return the place of each mountPath.

        Raises:
            ManifestError: An entry would be written outside its volume.
        """
        for volume in template.volumes:
            place = directory / volume["name"]
            place.mkdir(parents=True, exist_ok=True)
            for source in (volume.get("projected") or {}).get("sources") or [volume]:
                self._write(source, place)
        return {mount.path: _mounted(directory / mount.volume, mount.sub_path) for mount in template.mounts}

    def _write(self, source: Mapping[str, Any], place: Path) -> None:
        kind, reference = _object(source, "configMap", "secret")
        entries = self.data(kind, reference.get("secretName") or reference.get("name", ""))
        paths = {item["key"]: item["path"] for item in reference.get("items") or ()} or {key: key for key in entries}
        for key, path in paths.items():
            if key in entries:
                file = _below(place, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(entries[key])


def _mounted(volume: Path, sub_path: str) -> Path:
    """Return the place of *sub_path* in a volume; like the kubelet, make a directory if it does not exist."""
    place = _below(volume, sub_path)
    if not place.exists():
        place.mkdir(parents=True)
    return place


def _below(place: Path, path: str) -> Path:
    """Return *path* below *place*; the manifests are validated, so only a fault of this program leads outside."""
    if not (place / path).resolve().is_relative_to(place.resolve()):
        raise ManifestError([f"{path}: leads outside the volume {place.name}"])
    return place / path


def unfilled_volumes(template: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield volume and kind of each source that only a cluster can fill: image, serviceAccountToken, downwardAPI."""
    for volume in template["spec"].get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or [volume]:
            yield from ((volume["name"], kind) for kind in _FILLED_BY_CLUSTERS if source.get(kind) is not None)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace each `$(NAME)` by the variable defined before it; `$$` is a dollar, and an unknown name stays."""
    return _REFERENCE.sub(lambda m: "$" if m[1] is None else variables.get(m[1], m[0]), text)


def _data(body: Mapping[str, Any]) -> dict[str, bytes]:
    plain = body.get("stringData") if body["kind"] == "Secret" else body.get("data")
    encoded = body.get("data") if body["kind"] == "Secret" else body.get("binaryData")
    decoded = {key: base64.b64decode(value) for key, value in (encoded or {}).items()}
    return decoded | {key: str(value).encode() for key, value in (plain or {}).items()}


def _object(source: Mapping[str, Any], config_map: str, secret: str) -> tuple[str, Mapping[str, Any]]:
    return ("ConfigMap", source[config_map]) if source.get(config_map) else ("Secret", source.get(secret) or {})


def references(template: Template) -> Iterator[tuple[str, Mapping[str, Any], str | None]]:
    """Yield kind, reference and entry (None for the whole object) of each ConfigMap and Secret that *template* names."""
    for source in template.env_from:
        yield *_object(source, "configMapRef", "secretRef"), None
    for variable in template.env:
        if variable.get("valueFrom"):
            kind, reference = _object(variable["valueFrom"], "configMapKeyRef", "secretKeyRef")
            yield kind, reference, reference.get("key")
    for volume in template.volumes:
        for source in (volume.get("projected") or {}).get("sources") or [volume]:
            if source.get("configMap") or source.get("secret"):
                kind, reference = _object(source, "configMap", "secret")
                named = {"name": reference.get("secretName") or reference.get("name", ""), **reference}
                yield from ((kind, named, item["key"]) for item in reference.get("items") or ())
                yield kind, named, None
