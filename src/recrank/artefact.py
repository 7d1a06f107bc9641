"""
The model artefact: a folder with arrays, items, and a manifest with their hashes.

    manifest.json      name, version, schema version, shapes, SHA-256 of the other files, training facts, metrics
    arrays.safetensors numbers only; reading them runs no code, unlike a pickle
    items.json         item ids in row order, with title and attributes where known
    ranker.model       the file of the declared ranker, if it has one
    encoder.model      the file of the declared encoder, if it has one

The version is derived from the content, so equal training gives an equal version. A file that differs by one bit is
refused. The content depends neither on the clock nor on the machine.
"""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from recrank.reference import Buckets
from recsys.contracts.wire import MAX_ID_LENGTH
from recsys.declaration.reader import default_declaration
from recsys.declaration.types import Declaration
from recsys.items import Item as Item  # noqa: PLC0414 - items.json holds a list of these, so this module offers them too

SCHEMA_VERSION = 4
MANIFEST, ARRAYS, ITEMS = "manifest.json", "arrays.safetensors", "items.json"
RANKER, ENCODER = "ranker.model", "encoder.model"

_REMEDY = "train it again, or restore the folder"

T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]


class ArtefactError(Exception):
    """The artefact cannot be served: it is missing, damaged, or of another schema."""


class Declared(Struct, frozen=True):
    """The declaration by which an artefact was trained, and its digest."""

    digest: str
    content: Declaration


class Manifest(Struct, frozen=True):
    """
    The description of an artefact.

    Attributes:
        name: The model's name.
        version: First 12 digits of the SHA-256 over the hashes of the files and the declarations of attached models.
        schema_version: Version of this format; any other is refused.
        shapes: Shape of each array.
        sha256: SHA-256 of each file.
        training: Hyper-parameters, seed, fingerprint and size of the data.
        metrics: Metrics measured during training.
        declaration: The declaration; None for the demo's.
        reference: Distributions of the training data, by measure (`reference`); None if they are unknown.
    """

    name: str
    version: str
    schema_version: int
    shapes: dict[str, list[int]]
    sha256: dict[str, str]
    training: dict[str, Any]
    metrics: dict[str, float]
    declaration: Declared | None = None
    reference: dict[str, Buckets] | None = None


class Artefact(Struct, frozen=True):
    """A verified artefact in memory; *files* holds the content of `RANKER` and `ENCODER`, if there are any."""

    manifest: Manifest
    arrays: dict[str, NDArray[Any]]
    items: list[Item]
    files: Mapping[str, bytes] = {}

    @property
    def declaration(self) -> Declaration:
        """The declaration by which the artefact was trained."""
        declared = self.manifest.declaration
        return declared.content if declared else default_declaration()


def write_artefact(
    folder: Path,
    *,
    name: str,
    arrays: Arrays,
    items: list[Item],
    training: Mapping[str, Any],
    metrics: Mapping[str, float],
    declaration: Declaration | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Manifest:
    """Write an artefact into the new or empty *folder*, the manifest last; return the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        ARRAYS: save_arrays({key: np.ascontiguousarray(array) for key, array in sorted(arrays.items())}),
        ITEMS: msgspec.json.encode(items),
        **(files or {}),
    }
    hashes = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    manifest = Manifest(
        name=name,
        version=derive_version(hashes, declaration),
        schema_version=SCHEMA_VERSION,
        shapes={key: list(array.shape) for key, array in sorted(arrays.items())},
        sha256=hashes,
        training=dict(training),
        metrics=dict(metrics),
        declaration=Declared(declaration.digest, declaration) if declaration else None,
    )
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    write_manifest(folder, manifest)
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write *manifest* into the folder of its artefact."""
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))


def read_artefact(folder: Path) -> Artefact:
    """
    Read and verify the artefact in *folder*.

    Cost: one pass of SHA-256 over the files, about 2 ms a megabyte.

    Raises:
        ArtefactError: the artefact is missing, damaged, of another schema, or inconsistent; the message says which.
    """
    manifest = _read_manifest(folder)
    own = [file for file in (RANKER, ENCODER) if file in manifest.sha256]
    contents = {file: _read_verified(folder / file, manifest) for file in (ARRAYS, ITEMS, *own)}
    declared = manifest.declaration.content if manifest.declaration else None
    if manifest.version != derive_version(manifest.sha256, declared):
        raise ArtefactError(
            f"{folder / MANIFEST}: version {manifest.version!r} does not belong to these files; {_REMEDY}"
        )
    if manifest.declaration and manifest.declaration.digest != manifest.declaration.content.digest:
        raise ArtefactError(f"{folder / MANIFEST}: the declaration does not have its digest; {_REMEDY}")
    arrays = _read_arrays(contents[ARRAYS], folder / ARRAYS)
    shapes = {key: list(array.shape) for key, array in arrays.items()}
    if shapes != manifest.shapes:
        raise ArtefactError(f"{folder / ARRAYS}: shapes {shapes} are not the manifest's {manifest.shapes}; {_REMEDY}")
    items = _decode(contents[ITEMS], list[Item], folder / ITEMS)
    _check_ids(items, folder / ITEMS)
    return Artefact(manifest, arrays, items, {file: contents[file] for file in own})


def _read_arrays(content: bytes, path: Path) -> dict[str, NDArray[Any]]:
    try:
        arrays = load_arrays(content)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        # The last three are raised for number types that numpy does not have.
        raise ArtefactError(f"{path}: cannot be read: {error}; {_REMEDY}") from error
    for key, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise ArtefactError(f"{path}: {key} holds {array.dtype}, not numbers; {_REMEDY}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ArtefactError(f"{path}: {key} holds numbers that are not finite; {_REMEDY}")
    return arrays


def _check_ids(items: Sequence[Item], path: Path) -> None:
    """Refuse ids that no request may contain, and ids that several rows share."""
    for row, item in enumerate(items):
        if not 1 <= len(item.item_id) <= MAX_ID_LENGTH:
            raise ArtefactError(
                f"{path}: row {row} has an id of {len(item.item_id)} characters, not 1 to {MAX_ID_LENGTH}; {_REMEDY}"
            )
    if len({item.item_id for item in items}) < len(items):
        ((item_id, times),) = Counter(item.item_id for item in items).most_common(1)
        raise ArtefactError(f"{path}: {times} rows have the id {item_id!r}; {_REMEDY}")


def derive_version(hashes: Mapping[str, str], declaration: Declaration | None = None) -> str:
    """Return the version that belongs to files with these *hashes*, and to the models that *declaration* attaches."""
    own = (declaration.ranker, declaration.encoder) if declaration else ()
    # A class and the order of the columns are in no file.
    attached = {f"model {place}": msgspec.json.encode(model).decode() for place, model in enumerate(own) if model}
    named = {**hashes, **attached}
    lines = "".join(f"{name}:{named[name]}\n" for name in sorted(named))
    return hashlib.sha256(lines.encode()).hexdigest()[:12]


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not os.path.lexists(path):
        raise ArtefactError(f"no model at {folder}; set MODEL_PATH to a trained model, or run ./run.sh train")
    content = _read_bytes(path)
    # The schema version is checked first, because a manifest of another version may have other fields.
    found = _decode(content, dict[str, Any], path).get("schema_version")
    if found != SCHEMA_VERSION:
        raise ArtefactError(f"{path}: schema version {found!r}; this program reads {SCHEMA_VERSION}; {_REMEDY}")
    return _decode(content, Manifest, path)


def _decode(content: bytes, type_: type[T], path: Path) -> T:
    try:
        return msgspec.json.decode(content, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ArtefactError(f"{path}: cannot be read: {error}; {_REMEDY}") from error


def _read_verified(path: Path, manifest: Manifest) -> bytes:
    content = _read_bytes(path)
    if hashlib.sha256(content).hexdigest() != manifest.sha256.get(path.name):
        raise ArtefactError(
            f"{path}: its SHA-256 is not the manifest's; the file is damaged or was replaced; {_REMEDY}"
        )
    return content


def _read_bytes(path: Path) -> bytes:
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for its writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ArtefactError(f"{path}: is not a regular file; {_REMEDY}")
            return file.read()
    except OSError as error:
        raise ArtefactError(f"{path}: {error.strerror}; {_REMEDY}") from error
