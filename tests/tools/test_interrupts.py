"""Ctrl-C ends a verb with one sentence about what it leaves, and exit status 130."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from localkn.processes import free_port
from offline.state import StateDirectory
from offline.train import TrainingPlan
from offline.train import run as train
from tools import export, store
from tools.cli import __main__ as program
from tools.cli import verbs
from tools.up import up

pytestmark = pytest.mark.may_block


def interrupt(*_arguments: object, **_options: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("verb", "says"),
    [
        (lambda folder: export.run(to=folder / "lists.csv", top_k=5, state_dir=folder), "the same command continues"),
        (lambda _: store.copy(action="copy", source="memory:", target="memory:"), "the target holds its former"),
        (lambda folder: train(TrainingPlan(state_dir=folder, if_missing=True)), "what was current stays current"),
        (lambda _: program.run(), ""),
    ],
    ids=["export", "store copy", "train", "any other"],
)
def test_an_interrupted_verb_says_what_it_leaves(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: Callable[[Path], int],
    says: str,
) -> None:
    """Verbs that write say what the target holds; the others end silently."""
    monkeypatch.setattr(StateDirectory, "current", interrupt)
    monkeypatch.setattr(store, "open_store", interrupt)
    monkeypatch.setattr(verbs, "main", interrupt)
    assert verb(tmp_path) == 130
    printed = capsys.readouterr().err
    assert says in printed
    assert len(printed.splitlines()) == bool(says)


def test_an_interrupted_first_start_ends_as_its_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training has said what it leaves; `up` adds nothing, and its status is that of Ctrl-C."""
    monkeypatch.setattr("offline.train.run", lambda _: 130)
    with pytest.raises(SystemExit) as end:
        up(port=free_port(), state_dir=tmp_path / "state")
    assert end.value.code == 130


def test_sigterm_ends_a_verb_as_ctrl_c_does() -> None:
    """The verb unwinds, so its context managers stop the processes that they started."""
    former = signal.getsignal(signal.SIGTERM)
    try:
        program.end_as_on_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, former)
