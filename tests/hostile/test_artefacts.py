"""Model artefacts that are not what they claim to be."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save

from chassis.server.service import StartError
from functions.rank_items.model_loader import load_model
from recrank.artefact import ARRAYS, ITEMS, MANIFEST, ArtefactError, derive_version, read_artefact
from tests.trained import model_of, train, write_csv

pytestmark = pytest.mark.may_block


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    rows = [f"u{user},i{(user % 3) * 5 + item}" for user in range(20) for item in range(5)]
    assert train(folder / "s", "--interactions", write_csv(folder / "a.csv", "user_id,item_id", rows)) == 0
    return model_of(folder / "s")


@pytest.fixture
def folder(valid: Path, tmp_path: Path) -> Path:
    for file in valid.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def vouch(folder: Path, file: str, content: bytes, **changes: Any) -> None:
    """Write *content* and update the manifest's hash, as an attacker with access to the folder can."""
    (folder / file).write_bytes(content)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["sha256"][file] = hashlib.sha256(content).hexdigest()
    manifest["version"] = derive_version(manifest["sha256"])
    (folder / MANIFEST).write_text(json.dumps(manifest | changes))


def vouch_arrays(folder: Path, arrays: dict[str, NDArray[Any]]) -> None:
    vouch(folder, ARRAYS, save(arrays), shapes={name: list(array.shape) for name, array in arrays.items()})


def items(folder: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((folder / ITEMS).read_text())
    return found


def load(folder: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        load_model(folder, workers=1, pool=pool)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'[{"item_id":"a"},{"item_id":"b"},{"item_id":"a"}]', "2 rows have the id 'a'"),
        (b'[{"item_id":""}]', "row 0 has an id of 0 characters, not 1 to 128"),
        (b'[{"item_id":"a"},{"item_id":"%s"}]' % (b"x" * 129), "row 1 has an id of 129 characters, not 1 to 128"),
        (b'[{"item_id":"\xff"}]', "items.json: cannot be read"),
        (b'[{"item_id":"\\ud800"}]', "items.json: cannot be read"),
        (b'[{"item_id":7}]', "items.json: cannot be read"),
        (b"[" * 100_000, "items.json: cannot be read"),
        (b"", "items.json: cannot be read"),
    ],
)
def test_items_that_cannot_be_served_are_refused(folder, content, says):
    """Ids that are duplicate, too long for a request or not text are refused with the file and the fault."""
    vouch(folder, ITEMS, content)
    with pytest.raises(ArtefactError, match=says) as raised:
        read_artefact(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dtype", [np.bool_, np.complex64, np.int64, np.float64, np.uint8])
def test_arrays_of_any_type_are_refused_or_rank(folder, dtype):
    """With any type of array, the model either loads or is refused with a reason."""
    for name in read_artefact(folder).arrays:
        arrays = dict(read_artefact(folder).arrays)
        before = (folder / ARRAYS).read_bytes(), (folder / MANIFEST).read_bytes()
        arrays[name] = arrays[name].astype(dtype)
        try:
            vouch_arrays(folder, arrays)
            load(folder)
            assert dtype not in {np.bool_, np.complex64}
        except (ArtefactError, StartError) as error:
            assert "\n" not in str(error)
        (folder / ARRAYS).write_bytes(before[0])
        (folder / MANIFEST).write_bytes(before[1])


def test_boolean_arrays_are_refused(folder):
    """The message names the array and its type."""
    vouch_arrays(folder, {"item_factors": np.ones((15, 4), np.bool_)})
    with pytest.raises(ArtefactError, match="item_factors holds bool, not numbers"):
        read_artefact(folder)


@pytest.mark.parametrize("file", [MANIFEST, ARRAYS, ITEMS])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_files_that_are_none_are_refused(folder, file, make):
    """A FIFO, a folder or a device in the place of a file is refused without waiting for its content."""
    (folder / file).unlink()
    make(folder / file)
    with pytest.raises(ArtefactError, match=f"{file}: (is not a regular file|Is a directory)"):
        read_artefact(folder)


def test_files_may_be_links(folder, tmp_path):
    """Kubernetes mounts the files of a ConfigMap as symbolic links."""
    (tmp_path / "data").mkdir()
    for file in (MANIFEST, ARRAYS, ITEMS):
        (folder / file).rename(tmp_path / "data" / file)
        (folder / file).symlink_to(Path("data") / file)
    assert len(read_artefact(folder).items) == 15


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_arrays_of_any_shape_are_refused_or_rank(valid, tmp_path_factory, data):
    """An array of another shape, missing, or with extreme numbers: the model loads, or one sentence says why not."""
    folder = tmp_path_factory.mktemp("shaped")
    for each in valid.iterdir():
        (folder / each.name).write_bytes(each.read_bytes())
    arrays = dict(read_artefact(folder).arrays)
    name = data.draw(st.sampled_from(sorted(arrays)))
    shape = data.draw(st.lists(st.integers(0, 16), max_size=3))
    number = data.draw(st.sampled_from([0.0, 1.0, -1.0, 1e30, -1e30, 1e-30]))
    if data.draw(st.booleans()):
        arrays[name] = np.full(shape, number, np.float32)
    else:
        del arrays[name]
    vouch_arrays(folder, arrays)
    try:
        load(folder)
    except (ArtefactError, StartError) as error:
        assert str(error)
