"""Kubernetes objects out of YAML: one file, a directory of files, or a kustomization."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from localkn.errors import ManifestError

KUSTOMIZATION_NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")


@dataclass(frozen=True, slots=True)
class Resource:
    """One object of the manifests and the file it came from."""

    body: dict[str, Any]
    source: str

    @property
    def kind(self) -> str:
        """Such as `Service`; core and Knative Services are told apart by `api_group`."""
        return str(self.body.get("kind", ""))

    @property
    def api_group(self) -> str:
        """The part of apiVersion before the slash; empty for core objects."""
        return str(self.body.get("apiVersion", "")).rpartition("/")[0]

    @property
    def name(self) -> str:
        """metadata.name."""
        return str((self.body.get("metadata") or {}).get("name", ""))

    @property
    def namespace(self) -> str:
        """metadata.namespace, `default` where there is none."""
        return str((self.body.get("metadata") or {}).get("namespace", "default"))

    @property
    def is_service(self) -> bool:
        """Whether this is a Knative Service."""
        return (self.api_group, self.kind) == ("serving.knative.dev", "Service")

    def fault(self, path: str, message: str) -> str:
        """One line that says where in this object something is wrong."""
        return f"{self.source}: {self.kind} {self.name}: {path}: {message}"


def load(path: Path) -> list[Resource]:
    """
    Read every object under *path*.

    Args:
        path: A YAML file, a directory with a kustomization (built as kustomize would), or one of YAML files.

    Raises:
        ManifestError: Nothing is there, it is no YAML, or an object is defined twice.
    """
    from localkn.kustomize import build  # noqa: PLC0415 - kustomize reads files through this module

    if path.is_dir():
        if any((path / name).is_file() for name in KUSTOMIZATION_NAMES):
            resources = build(path)
        else:
            files = sorted(file for file in path.iterdir() if file.suffix in {".yaml", ".yml"})
            resources = [resource for file in files for resource in read_file(file)]
    else:
        resources = read_file(path)
    if not resources:
        raise ManifestError([f"{path}: no Kubernetes objects found"])
    _refuse_duplicates(resources)
    return resources


def read_file(path: Path) -> list[Resource]:
    """
    Read the objects of one file; a `List` is taken apart.

    Raises:
        ManifestError: The file cannot be read, or a document in it is no object.
    """
    faults, resources = [], []
    for document in read_documents(path):
        if isinstance(document, dict) and document.get("kind") == "List":
            resources += [Resource(item, str(path)) for item in document.get("items") or []]
        elif isinstance(document, dict) and document.get("apiVersion") and document.get("kind"):
            resources.append(Resource(document, str(path)))
            if not resources[-1].name:
                faults.append(resources[-1].fault("metadata.name", "is missing"))
        else:
            faults.append(f"{path}: a document without apiVersion and kind")
    if faults:
        raise ManifestError(faults)
    return resources


def read_documents(path: Path) -> list[Any]:
    """
    Read the documents of a YAML file as Kubernetes does: no key twice, dates stay text.

    Raises:
        ManifestError: The file cannot be read or is no YAML.
    """
    try:
        return [document for document in yaml.load_all(path.read_text("utf-8"), _Loader) if document is not None]
    except OSError as error:
        raise ManifestError([f"{path}: {error.strerror}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError([f"{path}: {' '.join(str(error).split())}"]) from error


def parse_yaml(text: str) -> Any:
    """Read one YAML document the same way; errors are yaml.YAMLError."""
    return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader


class _Loader(yaml.SafeLoader):
    """SafeLoader without YAML 1.1 timestamps and with an error for a key given twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own attribute, replaced rather than shared
        first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        """Build a mapping, refusing a key that is there twice."""
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(None, None, f"key {twice!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _refuse_duplicates(resources: Sequence[Resource]) -> None:
    def duplicates() -> Iterator[str]:
        seen: dict[tuple[str, ...], Resource] = {}
        for resource in resources:
            key = (resource.api_group, resource.kind, resource.namespace, resource.name)
            if key in seen:
                yield f"{resource.source}: {resource.kind} {resource.name} is defined in {seen[key].source} already"
            seen[key] = resource

    if faults := list(duplicates()):
        raise ManifestError(faults)
