import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recrank.artefact import (
    ARRAYS,
    ITEMS,
    MANIFEST,
    ArtefactError,
    Item,
    derive_version,
    read_artefact,
    write_artefact,
)

ARRAYS_IN: dict[str, NDArray[Any]] = {
    "item_factors": np.arange(6, dtype=np.float32).reshape(3, 2),
    "ids": np.array([1, 2, 3], np.int64),
}
ITEMS_IN = [Item("a", "Title", {"category": ("Genre",)}), Item("b"), Item("ü")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_artefact(
        tmp_path / "model", name="m", arrays=ARRAYS_IN, items=ITEMS_IN, training={"seed": 1}, metrics={"x": 0.5}
    )
    return tmp_path / "model"


def test_a_written_artefact_can_be_read(folder):
    """Arrays, items and metadata are read as they were written."""
    artefact = read_artefact(folder)
    assert artefact.items == ITEMS_IN
    for name, array in ARRAYS_IN.items():
        np.testing.assert_array_equal(artefact.arrays[name], array)
        assert artefact.arrays[name].dtype == array.dtype
    assert artefact.manifest.shapes == {"item_factors": [3, 2], "ids": [3]}
    assert artefact.manifest.training == {"seed": 1}
    assert artefact.manifest.metrics == {"x": 0.5}


def test_the_version_is_derived_from_the_content(folder, tmp_path):
    """Equal content has the same version in every folder, and other content has another version."""
    again = write_artefact(
        tmp_path / "again", name="m", arrays=dict(reversed(ARRAYS_IN.items())), items=ITEMS_IN, training={}, metrics={}
    )
    other = write_artefact(
        tmp_path / "other", name="m", arrays=ARRAYS_IN, items=ITEMS_IN[::-1], training={}, metrics={}
    )
    assert again.version == read_artefact(folder).manifest.version != other.version


def edit(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        change(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return damage


def flip(file: str, place: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = bytearray((folder / file).read_bytes())
        content[place] ^= 1
        (folder / file).write_bytes(content)

    return damage


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / MANIFEST).unlink(), "no model at"),
        (lambda folder: (folder / ARRAYS).unlink(), "arrays.safetensors: No such file"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "manifest.json: cannot be read"),
        (lambda folder: (folder / MANIFEST).write_text("[]"), "manifest.json: cannot be read"),
        (lambda folder: (folder / MANIFEST).write_bytes(b"\xff"), "manifest.json: cannot be read"),
        (flip(ARRAYS, -1), "SHA-256 is not the manifest's"),
        (flip(ARRAYS, 3), "SHA-256 is not the manifest's"),
        (flip(ITEMS, 5), "SHA-256 is not the manifest's"),
        (edit(lambda m: m.update(schema_version=1)), "schema version 1; this program reads 4"),
        (edit(lambda m: m.pop("schema_version")), "schema version None"),
        (edit(lambda m: m.pop("name")), "manifest.json: cannot be read"),
        (edit(lambda m: m.update(version="0")), "version '0' does not belong"),
        (edit(lambda m: m.update(shapes={})), "shapes"),
        (edit(lambda m: m.update(sha256={})), "SHA-256"),
    ],
)
def test_an_invalid_artefact_is_refused(folder, damage, reason):
    """A missing, damaged or replaced file, or another schema, is refused with one sentence that names it."""
    damage(folder)
    with pytest.raises(ArtefactError, match=reason):
        read_artefact(folder)


def test_a_file_is_not_an_artefact(tmp_path):
    """A path to a file is refused like a missing folder."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="no model at .*file;"):
        read_artefact(tmp_path / "file")


def test_numbers_must_be_finite(tmp_path):
    """A model with NaN in an array is refused, although its hashes are right."""
    write_artefact(
        tmp_path, name="m", arrays={"a": np.array([1, np.nan], np.float32)}, items=[], training={}, metrics={}
    )
    with pytest.raises(ArtefactError, match="not finite"):
        read_artefact(tmp_path)


def test_a_file_that_is_not_arrays_is_refused(folder):
    """A file with the right hash and other content is refused, and its content is not executed."""
    content = b"cos\nsystem\n(S'true'\ntR."

    def vouch(manifest: dict[str, object]) -> None:
        hashes = manifest["sha256"]
        assert isinstance(hashes, dict)
        hashes[ARRAYS] = hashlib.sha256(content).hexdigest()
        manifest["version"] = derive_version(hashes)

    (folder / ARRAYS).write_bytes(content)
    edit(vouch)(folder)
    with pytest.raises(ArtefactError, match="cannot be read"):
        read_artefact(folder)
