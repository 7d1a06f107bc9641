"""All objects of a file, a directory of files, or a kustomization."""

from collections.abc import Sequence
from pathlib import Path

from kubeyaml.errors import ManifestError
from kubeyaml.kustomize import build, kustomization
from kubeyaml.resources import Resource, read_file


def load(path: Path) -> list[Resource]:
    """
    Read every object under *path*.

    Args:
        path: A YAML file, a directory with a kustomization (built as kustomize does), or a directory of YAML files.

    Raises:
        ManifestError: The path holds no objects or invalid YAML, or an object is defined twice.
    """
    if not path.is_dir():
        resources = read_file(path)
    elif kustomization(path) is not None:
        resources = build(path)
    else:
        files = sorted(file for file in path.iterdir() if file.suffix in {".yaml", ".yml"} and file.is_file())
        resources = [resource for file in files for resource in read_file(file)]
    if faults := ([] if resources else [f"{path}: no Kubernetes objects found"]) + _duplicates(resources):
        raise ManifestError(faults)
    return resources


def _duplicates(resources: Sequence[Resource]) -> list[str]:
    faults, sources = [], dict[tuple[str, ...], str]()
    for resource in resources:
        key = (resource.api_group, resource.kind, resource.namespace, resource.name)
        if key in sources:
            faults.append(f"{resource.source}: {resource.kind} {resource.name} is defined in {sources[key]} already")
        sources[key] = resource.source
    return faults
