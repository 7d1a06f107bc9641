"""A Kubernetes object, and reading objects from a file."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from kubeyaml.errors import ManifestError


class Resource:
    """One object of the manifests and the file it came from; an object of the core group has no `api_group`."""

    def __init__(self, body: dict[str, Any], source: str) -> None:
        metadata = body.get("metadata") or {}
        self.body, self.source = body, source
        self.api_group, self.kind = str(body["apiVersion"]).rpartition("/")[0], str(body["kind"])
        self.name, self.namespace = str(metadata.get("name", "")), str(metadata.get("namespace", "default"))
        self.is_service = (self.api_group, self.kind) == ("serving.knative.dev", "Service")

    def fault(self, path: str, message: str) -> str:
        """One line that says where in this object something is wrong."""
        return f"{self.source}: {self.kind} {self.name}: {path}: {message}"


def read_file(path: Path) -> list[Resource]:
    """
    Read the objects of one file; a `List` is taken apart.

    Raises:
        ManifestError: The file cannot be read, or a document in it is no object.
    """
    documents = read_documents(path)
    items = [
        item for d in documents for item in (d["items"] if isinstance(d, dict) and d.get("kind") == "List" else [d])
    ]
    if not all(isinstance(i, dict) and i.get("apiVersion") and i.get("kind") and i.get("metadata") for i in items):
        raise ManifestError([f"{path}: a document without apiVersion, kind and metadata"])
    return [Resource(item, str(path)) for item in items]


def read_documents(path: Path) -> list[Any]:
    """
    Read the documents of a YAML file.

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
    """Reads as Kubernetes does: dates stay text, and a key given twice is an error."""

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
