"""
Read YAML documents as Kubernetes does: plain JSON values, unique keys, keys and dates as text.

A file may come from an attacker, so the reader limits its size, with all aliases written out, before it builds values.
"""

import math
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

import yaml

from kubeyaml.errors import ManifestError

_MOST_NODES: Final = 100_000
"""Nodes of a document with every alias written out; the API server takes no object of more than 3 MiB."""

_MOST_BRACKETS: Final = 100
"""Brackets open at the same time; PyYAML's scanner visits all of them for every token."""

_TrustingLoader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PREFIX: Final = "tag:yaml.org,2002:"
_MERGE: Final = f"{_PREFIX}merge"
_TAGS: Final = {_PREFIX + name for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge", "value")}


def read_documents(path: Path) -> list[Any]:
    """
    Read the documents of a YAML file.

    Raises:
        ManifestError: The file cannot be read, or is not YAML that Kubernetes would take.
    """
    try:
        return parse_documents(path.read_text("utf-8"))
    except OSError as error:
        raise ManifestError([f"{path}: {error.strerror}"]) from error
    except ValueError as error:
        raise ManifestError([f"{path}: {error}"]) from error


def read_trusted(path: Path) -> Any:
    """Read a YAML file of this project, with the fast parser of libyaml if PyYAML was built with libyaml."""
    return yaml.load(path.read_text("utf-8"), _TrustingLoader)  # noqa: S506 - a safe loader


def parse_documents(text: str) -> list[Any]:
    """
    Read the documents of a YAML text; empty ones are left out.

    Raises:
        ValueError: *text* is not YAML that Kubernetes would take; the message is one line.
    """
    try:
        return [document for document in yaml.load_all(text, _Loader) if document is not None]
    except RecursionError as error:
        raise ValueError("the YAML is nested too deeply") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    """Builds JSON values only, and checks their size first."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own attribute, replaced rather than shared
        first: [(tag, regexp) for tag, regexp in resolvers if tag != f"{_PREFIX}timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        """Open a bracket, unless too many are open."""
        if self.flow_level >= _MOST_BRACKETS:
            reason = f"the YAML is nested too deeply: {_MOST_BRACKETS} brackets are open"
            raise yaml.scanner.ScannerError(None, None, reason, self.get_mark())
        super().fetch_flow_collection_start(token)

    def construct_document(self, node: yaml.Node) -> Any:
        """Build a document whose aliases stand for a bounded number of nodes."""
        _count_nodes(node, {})
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        """Build a mapping with keys of text, refusing a key that is given twice."""
        keys = [key for key, _ in node.value if key.tag != _MERGE]
        for key in keys:
            if not isinstance(key, yaml.ScalarNode):
                raise _refused("a key must be text", key)
            key.tag = f"{_PREFIX}str"
        if twice := [name for name, times in Counter(key.value for key in keys).items() if times > 1]:
            raise _refused(f"key {twice[0]!r} is given twice", node)
        return super().construct_mapping(node, deep)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        """Build a number that JSON can write."""
        number = super().construct_yaml_float(node)
        if not math.isfinite(number):
            raise _refused(f"{node.value} is not a finite number", node)
        return number


_Loader.add_constructor(f"{_PREFIX}float", _Loader.construct_yaml_float)


def _count_nodes(node: yaml.Node, counted: dict[int, int]) -> int:
    """
    Return how many nodes *node* has when each alias is written out.

    Args:
        node: A composed node, in which an alias is the same object as the node that it stands for.
        counted: The size of each node counted so far, by identity; 0 for a node whose children are being counted.

    Raises:
        yaml.constructor.ConstructorError: There are too many, a node holds itself, or a tag is not one of JSON's.
    """
    if id(node) in counted:
        if counted[id(node)] == 0:
            raise _refused("an alias stands for what contains it", node)
        return counted[id(node)]
    if node.tag not in _TAGS:
        raise _refused(f"{node.tag.replace(_PREFIX, '!!')} is not understood here", node)
    counted[id(node)], count = 0, 1
    children: list[Any] = [] if isinstance(node, yaml.ScalarNode) else node.value
    for child in children:
        for each in child if isinstance(child, tuple) else (child,):
            count += _count_nodes(each, counted)
            if count > _MOST_NODES:
                raise _refused(f"more than {_MOST_NODES} nodes with its aliases written out", node)
    counted[id(node)] = count
    return count


def _refused(reason: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, reason, node.start_mark)
