"""The file of fixed size that remembers a day."""

import os
from pathlib import Path

import pytest

from kndashboard.ring import SPANS, RingFile

SECONDS, HALF_MINUTES = SPANS
HOUR = 3600.0
BEGIN = 1_800_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.ring"


def opened(path: Path) -> RingFile:
    return RingFile(path, width=2)


def kept(ring: RingFile, begin: float, end: float, *, span=SECONDS) -> dict[int, dict[str, list[float]]]:
    return {at: {name: list(column) for name, column in columns.items()} for at, columns in ring.read(span, begin, end)}


def test_values_are_kept_by_second_and_by_half_minute(path: Path):
    """Each second has a slot, the values of a slot are added, and a half minute has their sum."""
    ring = opened(path)
    for at, value in ((0.4, 1.0), (0.6, 2.0), (29.0, 4.0), (30.0, 8.0)):
        ring.add(BEGIN + at, {"a": [value, 0.0]})
    assert kept(ring, BEGIN, BEGIN + 60) == {
        BEGIN: {"a": [3, 0]}, BEGIN + 29: {"a": [4, 0]}, BEGIN + 30: {"a": [8, 0]}
    }  # fmt: skip
    assert kept(ring, BEGIN, BEGIN + 60, span=HALF_MINUTES) == {BEGIN: {"a": [7, 0]}, BEGIN + 30: {"a": [8, 0]}}


def test_the_file_keeps_its_size_and_an_hour_and_a_day(path: Path):
    """The file never grows beyond 32 MB: a new second replaces the one an hour before it."""
    ring = opened(path)
    for hour in range(25):
        ring.add(BEGIN + hour * HOUR, {"a": [hour, 0.0]})
    end = BEGIN + 24 * HOUR
    assert kept(ring, BEGIN, end) == {end: {"a": [24, 0]}}
    assert [columns["a"][0] for columns in kept(ring, BEGIN, end, span=HALF_MINUTES).values()] == [*range(1, 25)]
    assert path.stat().st_size == ring.size
    assert RingFile(path.with_name("wide"), width=39).size <= 32 * 2**20


def test_a_restart_continues_the_same_slots(path: Path):
    """A later process reads what the former one wrote, and adds to the half minute that the former one began."""
    first = opened(path)
    first.add(BEGIN + 1, {"a": [1.0, 2.0]})
    first.mark(BEGIN + 1, "a-00001 was created")
    first.close()
    second = opened(path)
    second.add(BEGIN + 2, {"b": [5.0, 5.0], "a": [1.0, 1.0]})
    assert kept(second, BEGIN, BEGIN + 9) == {
        BEGIN + 1: {"a": [1, 2], "b": [0, 0]}, BEGIN + 2: {"a": [1, 1], "b": [5, 5]}
    }  # fmt: skip
    assert kept(second, BEGIN, BEGIN + 9, span=HALF_MINUTES) == {BEGIN: {"a": [2, 3], "b": [5, 5]}}
    assert second.marks() == [(BEGIN + 1, "a-00001 was created")]


@pytest.mark.parametrize("round_", range(3))
def test_a_range_across_the_end_of_the_ring_is_complete(path: Path, round_: int):
    """Slots before and after the ring's end are read in order."""
    ring = opened(path)
    turn = (BEGIN // SECONDS.slots + round_) * SECONDS.slots
    for at in (-2, -1, 0, 1):
        ring.add(turn + at, {"a": [at, 0.0]})
    assert [columns["a"][0] for columns in kept(ring, turn - 100, turn + 100).values()] == [-2, -1, 0, 1]


def test_the_newest_marks_are_kept(path: Path):
    """Marks beyond the file's room replace the oldest, also after a restart, and a long text is cut."""
    ring = opened(path)
    for i in range(200):
        ring.mark(BEGIN + i, f"mark {i}")
    ring.close()
    ring = opened(path)
    for i in range(200, 300):
        ring.mark(BEGIN + i, f"mark {i} " + "é" * 300)
    marks = ring.marks()
    assert [at - BEGIN for at, _ in marks] == [*range(44, 300)]
    assert marks[0][1] == "mark 44"
    assert marks[-1][1].startswith("mark 299 ééé")


def test_a_torn_slot_is_empty(path: Path):
    """A slot or a mark that was not written completely is left out, and the others are read."""
    ring = opened(path)
    ring.add(BEGIN, {"a": [1.0, 1.0]})
    ring.add(BEGIN + 1, {"a": [2.0, 2.0]})
    ring.mark(BEGIN, "whole")
    ring.close()
    content = bytearray(path.read_bytes())
    for number in (BEGIN, BEGIN + 1):
        place = content.index(int(number).to_bytes(8, "little"))
        content[place + 8] ^= number == BEGIN
    mark = content.index(b"whole")
    content[mark : mark + 1] = b"H"
    path.write_bytes(content)
    ring = opened(path)
    assert kept(ring, BEGIN, BEGIN + 9) == {BEGIN + 1: {"a": [2, 2]}}
    assert ring.marks() == []


def test_the_seventeenth_service_is_left_out(path: Path):
    """The file has 16 columns; a further Service does not disturb the others."""
    ring = opened(path)
    ring.add(BEGIN, {f"s{i}": [i, 0.0] for i in range(18)})
    assert kept(ring, BEGIN, BEGIN)[int(BEGIN)] == {f"s{i}": [i, 0] for i in range(16)}


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("not a ring")


def short(path: Path) -> None:
    opened(path).close()
    os.truncate(path, path.stat().st_size - 1)


def torn_header(path: Path) -> None:
    opened(path).close()
    with path.open("r+b") as file:
        file.write(b"\0" * 16)


def zeros(path: Path) -> None:
    size = RingFile(path, width=2).size
    path.write_bytes(b"\0" * size)


def other_width(path: Path) -> None:
    RingFile(path, width=3).close()


def fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [empty, text, short, torn_header, zeros, other_width, fifo])
def test_a_file_that_cannot_be_used_is_replaced(path: Path, spoil, capsys: pytest.CaptureFixture[str]):
    """A torn or foreign file never stops the dashboard: a new file takes its place, and the log says so."""
    spoil(path)
    ring = opened(path)
    ring.add(BEGIN, {"a": [1.0, 1.0]})
    ring.close()
    assert "its history is dropped" in capsys.readouterr().err
    again = opened(path)
    assert kept(again, BEGIN, BEGIN) == {BEGIN: {"a": [1, 1]}}
    assert capsys.readouterr().err == ""
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_path_that_cannot_be_written_costs_only_the_memory(path: Path, capsys: pytest.CaptureFixture[str]):
    """With a folder in the place of the file, or without the folder above it, the history lives in a nameless file."""
    path.mkdir()
    for place in (path, path.parent / "missing" / "history.ring"):
        ring = opened(place)
        ring.add(BEGIN, {"a": [1.0, 1.0]})
        assert kept(ring, BEGIN, BEGIN) == {BEGIN: {"a": [1, 1]}}
        ring.close()
        assert f"{place}: " in capsys.readouterr().err
    assert [file.name for file in path.parent.iterdir()] == [path.name]
