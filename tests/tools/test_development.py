"""The verb `test`: which runs of pytest it starts, and the status that it returns."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools import development

NO_TESTS = int(pytest.ExitCode.NO_TESTS_COLLECTED)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """Return the arguments of each run of pytest, none of which is started; each returns the status in STATUSES."""
    started: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> int:
        started.append(command[3:])
        return STATUSES[len(started) - 1]

    monkeypatch.setattr(development, "_run", run)
    monkeypatch.setattr(development, "_compile_tests", lambda: None)
    # With COVERAGE, the command is longer.
    monkeypatch.delenv("COVERAGE", raising=False)
    return started


STATUSES = [0, 1]


def _parallel(workers: int) -> tuple[str, ...]:
    return ("-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder", "--max-worker-restart", "0")


def test_the_ordinary_tests_run_in_parallel(runs):
    """Four workers share the files, unless the words choose the workers or name a test."""
    assert development.test(words=["tests/ranking", "-x"], scenarios=False) == 0
    assert runs.pop() == (*_parallel(4), "tests/ranking", "-x")
    for chosen in ("-n0", "tests/ranking/test_rules.py::test_ties"):
        development.test(words=[chosen], scenarios=False)
        assert runs.pop() == (chosen,)


def test_scenarios_that_need_the_machine_run_alone(runs):
    """The scenarios marked `alone` run one by one, the others two at a time; a failure of either run is returned."""
    assert development.test(words=["--fuzz-seconds", "9"], scenarios=True) == 1
    assert runs == [
        ("--scenarios", "-m", "alone", "--fuzz-seconds", "9"),
        ("--scenarios", "-m", "not alone", *_parallel(2), "--fuzz-seconds", "9"),
    ]


@pytest.mark.parametrize(
    ("statuses", "returned"), [([0, NO_TESTS], 0), ([NO_TESTS, 0], 0), ([NO_TESTS, 1], 1), ([NO_TESTS] * 2, NO_TESTS)]
)
def test_a_run_without_tests_is_no_failure_if_the_other_has_tests(runs, monkeypatch, statuses, returned):
    """A path may hold scenarios of one kind only; a path without any scenario is still a failure."""
    monkeypatch.setattr(f"{__name__}.STATUSES", statuses)
    assert development.test(words=None, scenarios=True) == returned


def test_the_first_run_compiles_every_test_file(monkeypatch, tmp_path):
    """In a new clone two processes collect all folders of tests once; later runs collect nothing in advance."""
    for name in ("bench", "stores", "tools"):
        (tmp_path / "tests" / name).mkdir(parents=True)
    collected: list[str] = []

    class Process(contextlib.nullcontext[None]):
        def __init__(self, command: list[str], **_: object) -> None:
            super().__init__()
            collected.extend(Path(word).name for word in command if word.startswith(str(tmp_path)))

    monkeypatch.setattr(development, "_ROOT", tmp_path)
    monkeypatch.setattr(development, "_run", lambda _: 0)
    monkeypatch.setattr("tools.development.subprocess.Popen", Process)
    assert development.test(words=None, scenarios=False) == 0
    assert sorted(collected) == ["bench", "stores", "tools"]
    (tmp_path / "tests" / "tools" / "__pycache__").mkdir()
    assert development.test(words=None, scenarios=False) == 0
    assert len(collected) == 3
