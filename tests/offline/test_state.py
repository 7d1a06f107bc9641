import json
import shlex
from pathlib import Path

import pytest

from offline.state import Current, StateDirectory, StateError
from recrank.artefact import ArtefactError
from recsys.declaration.reader import default_declaration, read_declaration
from tests.trained import artefact_of, records_of, train, write_csv


def small_csv(folder: Path, name: str = "a.csv", users: int = 12) -> Path:
    rows = [f"u{user},i{(user % 3) * 5 + item}" for user in range(users) for item in range(5)]
    return write_csv(folder / name, "user_id,item_id", rows)


def test_the_pointer_is_replaced(tmp_path):
    """The pointer names the current store and model until a new pair replaces them."""
    directory = StateDirectory(tmp_path / "new" / "state")
    assert directory.current() is None
    with directory.locked():
        directory.advance(Current("stores/1-a.db", "models/1-x", "a"))
        directory.advance(Current("stores/2-b.db", "models/2-y", "b"))
    assert StateDirectory(tmp_path / "new" / "state").current() == Current("stores/2-b.db", "models/2-y", "b")
    files = sorted(path.name for path in (tmp_path / "new" / "state").iterdir() if path.is_file())
    assert files == ["current.json", "lock"]


def test_an_unreadable_pointer_is_an_error(tmp_path):
    """The error for a damaged pointer names the file and the remedy."""
    directory = StateDirectory(tmp_path)
    (tmp_path / "current.json").write_text("{")
    with pytest.raises(StateError, match="train replaces it"):
        directory.current()


def test_an_unusable_directory_is_an_error(tmp_path, capsys):
    """A file in place of the state directory is reported in one sentence."""
    (tmp_path / "file").write_text("")
    assert train(tmp_path / "file") == 1
    assert "file: cannot be written: File exists" in capsys.readouterr().err


def test_training_makes_its_store_and_model_current(tmp_path):
    """The new store contains the users, the new model the items, and the printed environment names both."""
    assert train(tmp_path, "--interactions", small_csv(tmp_path)) == 0
    directory = StateDirectory(tmp_path)
    current = directory.require_current()
    assert current.dataset == "csv"
    artefact = artefact_of(tmp_path)
    assert [item.item_id for item in artefact.items] == sorted((f"i{n}" for n in range(15)), key=lambda i: (len(i), i))
    assert len(records_of(tmp_path)) == 12
    followed = tmp_path / "declarations" / f"{default_declaration().digest[:12]}.json"
    assert directory.environment() == [
        f"extract-features:FEATURE_STORE_URL={directory.store_url(current)}",
        f"extract-features:RECSYS_DECLARATION={followed}",
        f"rank-items:MODEL_PATH={directory.model_path(current)}",
        f"rank-items:CATALOGUE_URL={directory.store_url(current)}",
        f"rank-items:RECSYS_DECLARATION={followed}",
        f"recommend:POPULAR_LIST_PATH={tmp_path / 'popular.json'}",
    ]
    assert read_declaration(followed) == artefact.declaration == default_declaration()
    assert {setting.partition(":")[0] for setting in directory.environment(fused=True)} == {"recommend"}


def test_equal_training_gives_an_equal_version(tmp_path):
    """The same data and seed give the same version, other data gives another one, and earlier files stay."""
    models = []
    for number, users in enumerate((12, 12, 13)):
        assert train(tmp_path, "--interactions", small_csv(tmp_path, f"{number}.csv", users)) == 0
        models.append(StateDirectory(tmp_path).require_current().model)
    versions = [model.partition("-")[2] for model in models]
    assert versions[0] == versions[1] != versions[2]
    assert [model.partition("-")[0] for model in models] == ["models/1", "models/2", "models/3"]
    assert len(list((tmp_path / "stores").glob("*.db"))) == 3


def test_if_missing_keeps_the_current_model(tmp_path):
    """`--if-missing` does not train when there is a current model."""
    assert train(tmp_path, "--interactions", small_csv(tmp_path)) == 0
    before = (tmp_path / "current.json").read_bytes()
    assert train(tmp_path, "--if-missing") == 0
    assert (tmp_path / "current.json").read_bytes() == before


def test_a_malformed_file_changes_nothing(tmp_path, capsys):
    """A malformed line at the end of a file imports nothing and leaves no files."""
    good = small_csv(tmp_path)
    assert train(tmp_path, "--interactions", good) == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    bad = tmp_path / "bad.csv"
    bad.write_text(good.read_text() + "u1\n")
    assert train(tmp_path, "--interactions", bad) == 1
    assert "bad.csv:62: 2 columns wanted" in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and path != bad}
    assert after == before


def test_an_items_file_alone_is_refused(tmp_path):
    """An items file without interactions is an error."""
    assert train(tmp_path, "--items", "x") == 2


def test_a_damaged_model_is_refused(tmp_path):
    """The environment is printed only for an artefact that passes its checks."""
    assert train(tmp_path, "--interactions", small_csv(tmp_path)) == 0
    with pytest.raises(StateError, match="nothing was trained"):
        StateDirectory(tmp_path / "elsewhere").environment()
    current = json.loads((tmp_path / "current.json").read_text())
    (tmp_path / current["model"] / "items.json").write_text("[]")
    with pytest.raises(ArtefactError, match="SHA-256"):
        StateDirectory(tmp_path).environment()


def test_the_command_that_serves_a_model_can_be_copied(tmp_path):
    """A shell takes a directory with spaces and quotes as one word."""
    command = StateDirectory(tmp_path / "Ann's models").serving_command("models/1-a")
    folder = f"{tmp_path}/Ann's models"
    update = ["./run.sh", "kn", "service", "update", "rank-items"]
    assert shlex.split(command) == [*update, "--env", f"MODEL_PATH={folder}/models/1-a", "--state-dir", folder]
    assert "--state-dir" not in StateDirectory(Path(".recsys")).serving_command("models/1-a")
