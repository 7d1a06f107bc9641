"""Every verb that reads a state directory, on directories that are missing or damaged."""

import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from localkn.processes import free_port
from offline.state import StateDirectory
from recrank.artefact import ARRAYS
from recstore.sqlite_file import SCHEMA_VERSION
from tests.trained import model_of, train, write_csv
from tools.cli.verbs import main
from tools.up import up

pytestmark = pytest.mark.may_block


def write_data(path: Path) -> Path:
    rows = [f"u{user:02},i{(user % 3) * 5 + item}" for user in range(20) for item in range(5)]
    return write_csv(path, "user_id,item_id", rows)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once") / "state"
    assert train(folder, "--interactions", write_data(folder.with_name("a.csv"))) == 0
    return folder


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained_once, tmp_path / "state")


def store_of(folder: Path) -> Path:
    (path,) = (folder / "stores").iterdir()
    return path


def pointer(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "current.json").write_bytes(content)


def replaced(make: Callable[[Path], object], of: Callable[[Path], Path]) -> Callable[[Path], None]:
    """Return a function that replaces a file with the result of *make*."""

    def damage(folder: Path) -> None:
        path = of(folder)
        path.unlink()
        make(path)

    return damage


def current_json(folder: Path) -> Path:
    return folder / "current.json"


def loop(path: Path) -> None:
    path.symlink_to(path)


def executed(*statements: str) -> Callable[[Path], None]:
    """Return a function that executes SQL in a file."""

    def execute(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    return execute


foreign = executed("CREATE TABLE theirs (x)")
same_version_other_tables = executed("CREATE TABLE users (user_id TEXT)", f"PRAGMA user_version = {SCHEMA_VERSION}")


def corrupt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def zero_middle(folder: Path) -> None:
    content = bytearray(store_of(folder).read_bytes())
    content[4096:12_288] = bytes(8192)
    store_of(folder).write_bytes(content)


def cut(folder: Path) -> None:
    store_of(folder).write_bytes(store_of(folder).read_bytes()[: 4096 * 2 + 7])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: corrupt(model_of(folder) / ARRAYS), "SHA-256 is not the manifest's"),
        (lambda folder: store_of(folder).unlink(), "no such feature store; run ./run.sh train"),
        (replaced(Path.touch, store_of), "the file is empty"),
        (replaced(Path.mkdir, store_of), "is a folder"),
        (replaced(os.mkfifo, store_of), "is not a regular file"),
        (replaced(loop, store_of), "Too many levels of symbolic links"),
        (replaced(foreign, store_of), "version 0 of the tables, or another program's"),
        (replaced(same_version_other_tables, store_of), "table users is missing or another program's"),
        (replaced(lambda path: path.write_bytes(b"no database" * 999), store_of), "file is not a database"),
        (zero_middle, "malformed|damaged"),
        (cut, "malformed|damaged"),
        (lambda folder: executed("DELETE FROM facts")(store_of(folder)), "was never filled"),
        (pointer(b'{"store": "stores/1-c'), "current.json: is damaged"),
        (pointer(b""), "current.json: is damaged"),
        (pointer(b"\xff"), "current.json: is damaged"),
        (pointer(b"[" * 100_000), "current.json: is damaged"),
        (replaced(Path.mkdir, current_json), "current.json: is not a regular file"),
        (replaced(os.mkfifo, current_json), "current.json: is not a regular file"),
        (replaced(loop, current_json), "current.json: cannot be read: Too many levels"),
    ],
)
def test_a_start_and_the_doctor_say_what_is_wrong(trained, capfd, damage, says):
    """Each verb prints one sentence without a traceback and changes nothing."""
    damage(trained)
    before = sorted(trained.rglob("*"))
    assert main(["up", "--state-dir", str(trained), "--port", str(free_port())]) == 1
    start = capfd.readouterr()
    assert (start.out, len(start.err.splitlines())) == ("", 1)
    assert re.search(says, start.err), start.err
    shutil.rmtree(trained / "platform")
    assert main(["doctor", "--state-dir", str(trained), "--port", "1"]) == 1
    faults = [line for line in capfd.readouterr().out.splitlines() if line.startswith("fault") and "port 1" not in line]
    assert faults == [f"fault  {start.err.strip()}"]
    assert sorted(trained.rglob("*")) == before


def test_what_the_user_sets_counts(trained, monkeypatch):
    """The last value of a setting counts, so a store that the user names replaces that of the directory."""
    calls: list[list[str]] = []
    monkeypatch.setattr("tools.up.run_localkn", lambda words, **_: calls.append(words))
    named = "extract-features:FEATURE_STORE_URL=redis://127.0.0.1:6379/0"
    up(port=free_port(), state_dir=trained, env_override=[named])
    given = [word for word in calls[-1] if "FEATURE_STORE_URL=" in word]
    assert (len(given), given[-1]) == (2, named)


@pytest.mark.parametrize(
    "verb",
    [
        ["status"],
        ["train", "--from-store"],
        ["doctor"],
        ["recommend", "u1", "--url", "http://127.0.0.1:1"],
        ["evaluate", "--interactions", "FOLDER/a.csv", "--via", "http://127.0.0.1:1"],
    ],
)
def test_reading_makes_no_state_directory(tmp_path, verb):
    """A verb that only reads does not create the state directory."""
    write_data(tmp_path / "a.csv")
    main([*(word.replace("FOLDER", str(tmp_path)) for word in verb), "--state-dir", str(tmp_path / "typo")])
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def copy(*words: str) -> int:
    return main(["store", "copy", *words])


class TestCopying:
    """`store copy`, from sources that are missing or empty."""

    def test_a_missing_source_leaves_the_target(self, trained, tmp_path, capsys):
        """A source that does not exist is refused and not created, and the target keeps its content."""
        before = store_of(trained).read_bytes()
        assert copy("--from", f"sqlite:///{tmp_path}/typo.db", "--to", f"sqlite:///{store_of(trained)}") == 1
        assert capsys.readouterr().err.startswith(f"{tmp_path}/typo.db: no such feature store")
        assert copy("--from", f"sqlite:///{tmp_path}/typo.db", "--to", f"sqlite:///{tmp_path}/new.db") == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == ["state"]
        assert store_of(trained).read_bytes() == before

    def test_an_empty_source_is_copied_on_request_alone(self, trained, capsys):
        """A source without users is refused without --allow-empty, because it would empty the target."""
        words = ["--from", "memory:", "--to", f"sqlite:///{store_of(trained)}"]
        assert copy(*words) == 1
        assert "holds no users" in capsys.readouterr().err
        assert StateDirectory(trained).environment()
        assert copy(*words, "--allow-empty") == 0
        assert capsys.readouterr().out.endswith("users copied: 0\n")

    def test_wrong_urls_are_wrong_arguments(self, trained, tmp_path, capsys):
        """A URL of an unknown kind and two URLs of the same store exit with 2, and no message repeats a password."""
        (tmp_path / "link.db").symlink_to(store_of(trained))
        one = f"sqlite:///{store_of(trained)}"
        assert copy("--from", "foo", "--to", one) == 2
        assert "'--from': 'foo' names no feature store; use sqlite:///FILE" in capsys.readouterr().err
        assert copy("--from", "postgres://me:s3cret@db/x", "--to", one) == 2
        assert "s3cret" not in capsys.readouterr().err
        for other in (f"sqlite:///{tmp_path}/link.db", f"sqlite:///{tmp_path}/./state/stores/{store_of(trained).name}"):
            assert copy("--from", one, "--to", other) == 2
            assert "name the same store" in capsys.readouterr().err
        assert copy("--from", "redis://127.0.0.1:nope/0", "--to", one) == 2
        assert copy("--from", "redis://127.0.0.1", "--to", "redis://127.0.0.1:6379/0") == 2
