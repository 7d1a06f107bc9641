"""How the logs of several processes become one."""

from functools import partial
from pathlib import Path

import pytest

from localkn import logs


def write(folder: Path, name: str, *lines: str) -> None:
    (folder / f"{name}.log").write_text("".join(f"{line}\n" for line in lines))


def append(file: Path, text: str) -> None:
    with file.open("a") as log:
        log.write(text)


def stamped(second: int, text: str) -> str:
    return f'{{"time": "2026-01-02T03:04:{second:02}.000+00:00", "event": "{text}"}}'


def test_lines_are_merged_by_time(tmp_path: Path) -> None:
    """Lines are merged by time in each form of a time; a line without a time stays below the line before it."""
    write(tmp_path, "a-1", "before any time", stamped(2, "second"), "Traceback", "  of a-1", stamped(4, "fourth"))
    write(tmp_path, "b-2", "[2026-01-02 03:04:01.500][7][warning] first", "2026-01-02 03:04:03,5 third")
    lines = list(logs.merged(tmp_path, "", follow=False))
    order = ["before any time", "first", "second", "Traceback", "of a-1", "third", "fourth"]
    assert [word for line, word in zip(lines, order, strict=True) if word in line] == order
    assert [line.partition(" | ")[0] for line in lines] == ["a-1", "b-2", "a-1", "a-1", "a-1", "b-2", "a-1"]


@pytest.mark.parametrize(
    ("line", "colour"),
    [
        ('a-1 | {"level": "error", "event": "x"}', 31), ("[2026-01-02 03:04:01.500][7][warning] x", 33),
        ("Traceback (most recent call last):", 31), ('{"level": "debug"}', 2), ('{"level": "info", "event": "error"}', None),
        ('{"event": "terrors"}', None),
    ],
)  # fmt: skip
def test_levels_have_colours(line: str, colour: int | None) -> None:
    """The first level that a line names decides its colour; a line without a level and information have none."""
    assert logs.coloured(line) == (f"\x1b[{colour}m{line}\x1b[0m" if colour else line)


def test_lines_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New lines and new logs are read; a line that is still being written is read when it is complete."""
    write(tmp_path, "a-1", stamped(1, "one"))
    rounds = iter(
        [
            partial(write, tmp_path, "b-2", stamped(3, "three")),
            partial(append, tmp_path / "a-1.log", "2026-01-02 03:04:05 ha"),
            partial(append, tmp_path / "a-1.log", "lf\n"),
        ]
    )
    monkeypatch.setattr("time.sleep", lambda _: next(rounds)())
    lines = logs.merged(tmp_path, "", follow=True)
    assert [next(lines).split(" | ")[0] for _ in range(2)] == ["a-1", "b-2"]
    assert next(lines) == "a-1 | 2026-01-02 03:04:05 half"
