"""Kubernetes objects, and reading them from a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from kubeyaml.documents import read_documents
from kubeyaml.errors import ManifestError


class Resource:
    """One object of the manifests and the file it came from; an object of the core group has no `api_group`."""

    def __init__(self, body: dict[str, Any], source: str) -> None:
        metadata = body.get("metadata") or {}
        self.body, self.source = body, source
        self.api_group, self.kind = str(body["apiVersion"]).rpartition("/")[0], str(body["kind"])
        self.name, self.namespace = str(metadata.get("name", "")), str(metadata.get("namespace", "default"))
        self.is_service = (self.api_group, self.kind) == ("serving.knative.dev", "Service")

    @classmethod
    def read(cls, document: Any, source: str) -> Self:
        """
        Return *document* as an object.

        Raises:
            ManifestError: *document* has no apiVersion, no kind or no metadata.
        """
        if not isinstance(document, dict) or not document.get("apiVersion") or not document.get("kind"):
            raise ManifestError([f"{source}: a document without apiVersion, kind and metadata"])
        if not isinstance(document.get("metadata"), dict):
            raise ManifestError([f"{source}: {document['kind']}: metadata: must be a mapping"])
        return cls(document, source)

    def fault(self, path: str, message: str) -> str:
        """Return one line that names the file, the object and the field, and says what is wrong."""
        return f"{self.source}: {self.kind} {self.name}: {path}: {message}"


def read_file(path: Path) -> list[Resource]:
    """
    Read the objects of one file, and the items of a `List`.

    Raises:
        ManifestError: The file cannot be read, or a document in it is not an object.
    """
    return [Resource.read(item, str(path)) for document in read_documents(path) for item in _items(document, path)]


def _items(document: Any, path: Path) -> Iterator[Any]:
    if not isinstance(document, dict) or document.get("kind") != "List":
        yield document
    elif isinstance(document.get("items"), list):
        yield from document["items"]
    else:
        raise ManifestError([f"{path}: List: items: must be a list"])
