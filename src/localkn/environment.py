"""The environment and the files a container would have been given."""

import base64
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from localkn.manifests import Resource
from localkn.templates import Template

# What a command needs of the machine it runs on. Nothing else of the caller's environment gets through, so that
# a pipeline behaves alike in every shell, as it would in its image.
_INHERITED = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|TERM|VIRTUAL_ENV|PYTHON\w+|LD_LIBRARY_PATH|DYLD_\w+|SSL_CERT_\w+"
)
_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
_SERVICE_URL = re.compile(r"http://([a-z0-9.-]+)(?::80)?(?=[/?#,;\s\"']|$)")


class Configuration:
    """The ConfigMaps and Secrets of the manifests."""

    def __init__(self, resources: Sequence[Resource]) -> None:
        self._data = {
            (resource.kind, resource.name): _data(resource.body)
            for resource in resources
            if resource.kind in {"ConfigMap", "Secret"} and not resource.api_group
        }

    def data(self, kind: str, name: str) -> Mapping[str, bytes]:
        """Entries of an object, none where it is missing."""
        return self._data.get((kind, name), {})

    def missing(self, template: Template) -> Iterator[str]:
        """Name each object or entry that *template* needs and the manifests do not hold."""
        for kind, reference, key in _references(template):
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
        """Write the volumes of one instance under *directory*; returns where each mountPath is."""
        places = {}
        for volume in template.volumes:
            place = directory / volume["name"]
            place.mkdir(parents=True, exist_ok=True)
            places[template.mounts[volume["name"]]] = place
            for source in (volume.get("projected") or {}).get("sources") or [volume]:
                self._write(source, place)
        return places

    def _write(self, source: Mapping[str, Any], place: Path) -> None:
        kind, reference = _object(source, "configMap", "secret")
        entries = self.data(kind, reference.get("secretName") or reference.get("name", ""))
        paths = {item["key"]: item["path"] for item in reference.get("items") or ()} or {key: key for key in entries}
        for key, path in paths.items():
            if key in entries:
                (place / path).parent.mkdir(parents=True, exist_ok=True)
                (place / path).write_bytes(entries[key])


def inherited() -> dict[str, str]:
    """The part of this process's environment that instances see."""
    return {name: value for name, value in os.environ.items() if _INHERITED.fullmatch(name)}


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by a variable already defined; `$$` is a dollar, an unknown name stays."""
    return _REFERENCE.sub(lambda m: "$" if m[1] is None else variables.get(m[1], m[0]), text)


def localised(value: str, *, addresses: Mapping[str, int], places: Mapping[str, Path]) -> str:
    """
    Rewrite what a value says about the cluster: URLs of Services, and a mountPath at its start.

    Args:
        value: Of an environment variable or an argument.
        addresses: Host name of each Service to its port on this machine.
        places: mountPath to the directory that stands for it.
    """
    for mount, place in places.items():
        if value == mount or value.startswith(mount.rstrip("/") + "/"):
            return str(place) + value[len(mount.rstrip("/")) :]
    return _SERVICE_URL.sub(lambda m: f"http://127.0.0.1:{addresses[m[1]]}" if m[1] in addresses else m[0], value)


def _data(body: Mapping[str, Any]) -> dict[str, bytes]:
    plain = body.get("stringData") if body["kind"] == "Secret" else body.get("data")
    encoded = body.get("data") if body["kind"] == "Secret" else body.get("binaryData")
    decoded = {key: base64.b64decode(value) for key, value in (encoded or {}).items()}
    return decoded | {key: str(value).encode() for key, value in (plain or {}).items()}


def _object(source: Mapping[str, Any], config_map: str, secret: str) -> tuple[str, Mapping[str, Any]]:
    return ("ConfigMap", source[config_map]) if source.get(config_map) else ("Secret", source.get(secret) or {})


def _references(template: Template) -> Iterator[tuple[str, Mapping[str, Any], str | None]]:
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
