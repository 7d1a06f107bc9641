"""Trainings that are killed, run out of disk, or run beside each other."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offline.state import StateDirectory
from tests.running import ROOT
from tests.trained import artefact_of, train, write_csv
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.may_block


def write_data(path: Path, *, users: int) -> Path:
    rows = [f"u{user},i{(user + item) % 3}" for user in range(users) for item in range(2)]
    return write_csv(path, "user_id,item_id", rows)


def start(folder: Path, csv: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tools.cli", "train", f"--state-dir={folder}", f"--interactions={csv}", *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once") / "state"
    assert train(folder, "--interactions", write_data(folder.with_name("a.csv"), users=5)) == 0
    return folder


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """Return a trained state directory; `a.csv` beside it holds the data."""
    shutil.copytree(trained_once.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "state"


def steps(mode: str, folder: Path) -> Iterator[dict[str, Any]]:
    csv = write_data(folder.with_name("b.csv"), users=2)
    command = [sys.executable, str(ROOT / "tests/hostile/stepping.py"), mode, str(folder), str(csv)]
    ended = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    yield from map(json.loads, ended.stdout.splitlines())


@pytest.mark.scenario
def test_a_training_killed_at_any_step_leaves_the_former_state(trained):
    """After SIGKILL at each step the former pair is whole and current, and the next training succeeds and tidies up."""
    *killed, finished = steps("kill", trained)
    advanced = [each["event"] for each in killed].index("os.rename current.json") + 1
    assert advanced > 30
    assert {each["status"] for each in killed} == {-signal.SIGKILL}
    assert {each["left"] for each in killed[:advanced]} == {"former"}
    assert {each["left"] for each in killed[advanced:]} == {finished["left"]} != {"former"}
    assert [each for each in (*killed, finished) if each["again"] or each["drafts"]] == []


@pytest.mark.scenario
def test_a_full_disk_at_any_step_leaves_the_former_state(trained):
    """A write that fails ends the training with a sentence after its steps; the former pair is whole and current."""
    *failed, finished = steps("full", trained)
    refused = [each for each in failed if each["status"]]
    assert len(refused) > 8
    assert {each["status"] for each in refused} == {1}
    assert {each["printed"].removeprefix("training the model\n") for each in refused} == {
        f"{trained}-full: cannot be written: No space left on device; check the folder and its free space\n"
    }
    assert {each["left"] for each in refused} == {"former"}
    # The folders that exist already need no space.
    assert {each["left"] for each in failed if not each["status"]} == {finished["left"]}
    assert not any(each["again"] or each["drafts"] for each in failed)


def test_files_that_cannot_grow_leave_the_former_state(trained):
    """A write that fails in the middle of a file, also of the database, leaves the earlier pair current."""
    before = (trained / "current.json").read_bytes()
    csv = write_data(trained.with_name("b.csv"), users=400)
    limits = (1, 2000, 9000, 30_000)
    program = (
        "import resource, sys; from tools.cli.verbs import main\n"
        f"for limit in {limits}:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
        "    print(main(['train', *sys.argv[1:]]))"
    )
    command = [sys.executable, "-c", program, "--state-dir", str(trained), "--interactions", str(csv)]
    # The measurement of coverage would write a file at the end of the program, too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    ended = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    assert (ended.stdout, len(ended.stderr.splitlines())) == ("1\n" * len(limits), len(limits)), ended.stderr
    assert "Traceback" not in ended.stderr
    assert (trained / "current.json").read_bytes() == before
    assert StateDirectory(trained).environment()


def test_trainings_side_by_side_take_turns(trained):
    """The second training waits for the first, names the process that it waits for, and both succeed."""
    csv = trained.with_name("a.csv")
    with (trained / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        waiting = [start(trained, csv) for _ in range(2)]
        for each in waiting:
            assert each.stderr is not None
            assert each.stderr.readline() == f"{trained}: waiting for the training in process {os.getpid()} to end\n"
        assert [each.poll() for each in waiting] == [None] * 2
    for each in waiting:
        _, errors = each.communicate(timeout=LIMIT_S)
        assert (each.returncode, "Traceback" in errors) == (0, False), errors
    assert len(list((trained / "models").iterdir())) == len(list((trained / "stores").iterdir())) == 3


def test_two_first_starts_train_once(tmp_path):
    """With --if-missing the second of two trainings uses the result of the first."""
    csv = write_data(tmp_path / "a.csv", users=4)
    both = [start(tmp_path / "state", csv, "--if-missing") for _ in range(2)]
    for each in both:
        _, errors = each.communicate(timeout=LIMIT_S)
        assert each.returncode == 0, errors
    assert len(list((tmp_path / "state/models").iterdir())) == 1


def test_a_start_does_not_wait_for_a_training(trained):
    """While a training holds the directory, --if-missing finds the current pair, and it can be verified."""
    with StateDirectory(trained).locked():
        assert train(trained, "--if-missing") == 0
        assert StateDirectory(trained).environment()


def test_an_interrupted_training_prints_no_traceback(trained):
    """Ctrl-C during the wait or the training prints one sentence and exits with 130."""
    with StateDirectory(trained).locked():
        waiting = start(trained, trained.with_name("a.csv"))
        assert waiting.stderr is not None
        assert "waiting" in waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        _, errors = waiting.communicate(timeout=LIMIT_S)
    assert (waiting.returncode, errors) == (130, f"{trained}: interrupted; what was current stays current\n")


def test_a_closed_output_is_no_fault_of_the_directory(trained):
    """As with `train | head`: the command ends silently, and its message does not send the user to the disk."""
    with pytest.raises(BrokenPipeError), StateDirectory(trained).locked():
        raise BrokenPipeError


def test_only_the_owner_may_open_the_directory(tmp_path):
    """A state directory is created with mode 0700, independent of the umask."""
    before = os.umask(0)
    try:
        with StateDirectory(tmp_path / "new").locked():
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_paths_with_odd_characters_work(tmp_path):
    """A state directory may have a name that a URL must quote."""
    folder = tmp_path / "100% mine? #1 ü"
    assert train(folder, "--interactions", write_data(tmp_path / "a.csv", users=4)) == 0
    assert train(folder, "--from-store") == 0
    assert artefact_of(folder).manifest.training["users"] == 4
