"""
Attach models of a team's own to a trained artefact: a ranker, and a user encoder with its item vectors.

The result is a new artefact with a new version. It keeps popularity, neighbours and the blend of the trained one.
With an encoder, its item vectors take the place of the factors, and the arrays of the fold-in leave.
"""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from offline.descriptions import AttributeMap
from offline.learnable import learnable
from recrank.artefact import (
    ENCODER,
    RANKER,
    Artefact,
    ArtefactError,
    Declared,
    Manifest,
    write_artefact,
    write_manifest,
)
from recrank.changes import ATTRIBUTE_VALUES, ATTRIBUTE_VECTORS, shared_values
from recrank.reference import SCORE
from recsys.declaration.types import Declaration, OwnEncoder
from topk.item_table import F32

_OF_FOLD_IN = ("fold_in", "prior_", ATTRIBUTE_VECTORS)


class AttachError(Exception):
    """The declared models cannot be attached; the message says why."""


def attach(artefact: Artefact, declaration: Declaration, *, folder: Path) -> Artefact:
    """
    Return *artefact* with the models that *declaration* names, not yet written.

    Args:
        artefact: A trained artefact.
        declaration: Names the models; the paths are relative to *folder*.
        folder: Folder of the declaration.

    Raises:
        AttachError: the declaration names no model or fits another artefact, or a file cannot be used.
    """
    if not (declaration.ranker or declaration.encoder):
        raise AttachError("the declaration names no ranker and no encoder; add [ranker] or [encoder]")
    if difference := artefact.declaration.describe_difference(declaration, mine="the model", theirs="the declaration"):
        raise AttachError(f"{difference}; train with this declaration first")
    if artefact.declaration.encoder and not declaration.encoder:
        raise AttachError("the vectors of the model belong to its encoder; train first, or declare the encoder again")
    arrays, training = dict(artefact.arrays), artefact.manifest.training
    if declaration.encoder:
        vectors = _read_vectors(folder, declaration.encoder, items=len(artefact.items))
        learned, facts = _learn_map(artefact, vectors)
        kept = {name: array for name, array in arrays.items() if not name.startswith(_OF_FOLD_IN)}
        arrays, training = {**kept, "item_factors": vectors, **learned}, {**training, **facts}
    files = {
        file: _read(folder / model.path)
        for file, model in ((RANKER, declaration.ranker), (ENCODER, declaration.encoder))
        if model and model.path
    }
    manifest = msgspec.structs.replace(
        artefact.manifest,
        shapes={name: list(array.shape) for name, array in sorted(arrays.items())},
        declaration=Declared(declaration.digest, declaration),
        training=training,
    )
    return Artefact(manifest, arrays, artefact.items, files)


def write_attached(artefact: Artefact, folder: Path) -> Manifest:
    """Write an attached *artefact* into the new or empty *folder*; return its manifest with the new version."""
    manifest = artefact.manifest
    written = write_artefact(
        folder,
        name=manifest.name,
        arrays=artefact.arrays,
        items=artefact.items,
        training={**manifest.training, "attached_to": manifest.version},
        metrics=manifest.metrics,
        declaration=artefact.declaration,
        files=artefact.files,
    )
    # The attached model has its own scores. The distributions of the features stay.
    kept = {name: each for name, each in (manifest.reference or {}).items() if name != SCORE}
    written = msgspec.structs.replace(written, reference=kept or None)
    write_manifest(folder, written)
    return written


def _read_vectors(folder: Path, encoder: OwnEncoder, *, items: int) -> F32:
    path = folder / encoder.items
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise AttachError(
            f"{path}: cannot be read as a .npy file: {getattr(error, 'strerror', None) or error}"
        ) from error
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype != np.float32:
        raise AttachError(f"{path}: must hold a matrix of float32, one row for each item")
    if len(vectors) != items:
        raise AttachError(
            f"{path}: has {len(vectors)} rows for the {items} items of the model; order them by items.json"
        )
    if not vectors.size or not np.isfinite(vectors).all():
        raise AttachError(f"{path}: must hold finite numbers")
    return vectors


def _learn_map(artefact: Artefact, vectors: F32) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the map from attributes to *vectors*, by which serving places items that arrive later, and its facts."""
    training = artefact.manifest.training
    if ATTRIBUTE_VECTORS not in artefact.arrays:
        return {}, {}
    items = learnable({item.item_id: item for item in artefact.items}, artefact.declaration)
    known = [items[item.item_id] for item in artefact.items[: training["items"]]]
    learned = AttributeMap.of(known, ())
    if learned is None:
        return {}, {}
    weights = training["attributes"]["trust"] * learned.weigh(vectors[: len(known)])
    return {ATTRIBUTE_VECTORS: weights.astype(np.float32)}, {ATTRIBUTE_VALUES: shared_values(known)}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AttachError(f"{path}: cannot be read: {error.strerror}") from error


def require_blank(artefact: Artefact) -> None:
    """
    Check that *artefact* has no attached models, which a training cannot make.

    Raises:
        ArtefactError: it has some.
    """
    if artefact.declaration.ranker or artefact.declaration.encoder:
        raise ArtefactError(
            f"model {artefact.manifest.version}: has an attached ranker or encoder, which this training cannot make; "
            "run ./run.sh train --from-store, then ./run.sh model attach"
        )
