"""
A file of fixed size that remembers sums over time.

    header   CRC-32, length, and JSON: the format, and the Services in the order of their columns
    marks    the newest events: CRC-32, time, text
    rings    for each ring its slots: CRC-32, number, and the columns of values

The number of a slot is its time divided by the step of its ring, and its place follows from the number. The file
therefore needs no cursor. A slot with another number is from an earlier round, and a slot with a wrong CRC-32 was not
written completely: both are empty. All values are sums, so two slots are merged by addition.
"""

import json
import os
import stat
import struct
import sys
import tempfile
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import add
from pathlib import Path

_HEADER_BYTES, _MARK_BYTES = 4096, 256
_MARKS, _COLUMNS = 256, 16
_HEAD, _MARK, _SLOT = struct.Struct("<II"), struct.Struct("<Idh"), struct.Struct("<IQ")


@dataclass(frozen=True)
class RingSpan:
    """A ring: its step in seconds, and its number of slots."""

    step_s: int
    slots: int


# An hour by the second, and a day by half minutes.
SPANS = (RingSpan(1, 3600), RingSpan(30, 2880))

Columns = Mapping[str, Sequence[float]]


class RingFile:
    """
    The file, open for one process.

    Args:
        path: The file. A file that is torn or of another format is replaced.
        width: Number of values of a Service in a slot.
    """

    def __init__(self, path: Path, *, width: int) -> None:
        self._width = width
        self._slot_bytes = _SLOT.size + 4 * width * _COLUMNS
        self._first = _HEADER_BYTES + _MARKS * _MARK_BYTES
        self.size = self._first + sum(span.slots for span in SPANS) * self._slot_bytes
        self._services: list[str] = []
        self._current: dict[RingSpan, tuple[int, array[float]]] = {}
        self._file = self._open(path)
        marks = list(self._marks())
        self._next_mark = (max(marks)[2] + 1) % _MARKS if marks else 0

    def add(self, at: float, columns: Columns) -> None:
        """
        Add values to the slots of the moment *at*, seconds since the epoch. The first 16 Services are remembered.

        Raises:
            OSError: The file cannot be written.
        """
        self._learn(columns)
        for span in SPANS:
            number = int(at // span.step_s)
            known, values = self._current.get(span, (-1, array("f")))
            if known != number:
                values = next((held for _, held in self._read(span, number, number + 1)), self._empty())
            for name, column in columns.items():
                if name in self._services:
                    begin = self._services.index(name) * self._width
                    end = begin + self._width
                    values[begin:end] = array("f", map(add, values[begin:end], column))
            self._current[span] = number, values
            self._write(span, number, values)

    def read(self, span: RingSpan, begin: float, end: float) -> Iterator[tuple[int, Columns]]:
        """Yield the start of each slot that is not empty in *begin* to *end*, and its columns by Service."""
        oldest = int(end // span.step_s) - span.slots + 1
        for number, values in self._read(span, max(oldest, int(begin // span.step_s)), int(end // span.step_s) + 1):
            columns = (values[i * self._width : (i + 1) * self._width] for i in range(len(self._services)))
            yield number * span.step_s, dict(zip(self._services, columns, strict=True))

    def mark(self, at: float, text: str) -> None:
        """
        Remember an event; the oldest of 256 is overwritten.

        Raises:
            OSError: The file cannot be written.
        """
        written = text.encode()[: _MARK_BYTES - _MARK.size].decode(errors="ignore").encode()
        body = _MARK.pack(0, at, len(written))[4:] + written
        os.pwrite(self._file, _sealed(body), _HEADER_BYTES + self._next_mark * _MARK_BYTES)
        self._next_mark = (self._next_mark + 1) % _MARKS

    def marks(self) -> list[tuple[float, str]]:
        """Return the remembered events, oldest first."""
        return sorted((at, text) for at, text, _ in self._marks())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _marks(self) -> Iterator[tuple[float, str, int]]:
        region = os.pread(self._file, _MARKS * _MARK_BYTES, _HEADER_BYTES)
        for i in range(_MARKS):
            record = region[i * _MARK_BYTES : (i + 1) * _MARK_BYTES]
            seal, at, length = _MARK.unpack_from(record)
            body = record[4 : _MARK.size + length]
            if length > 0 and zlib.crc32(body) == seal:
                yield at, body[_MARK.size - 4 :].decode(errors="replace"), i

    def _empty(self) -> "array[float]":
        return array("f", bytes(4 * self._width * _COLUMNS))

    def _place(self, span: RingSpan, number: int) -> int:
        before = sum(each.slots for each in SPANS[: SPANS.index(span)])
        return self._first + (before + number % span.slots) * self._slot_bytes

    def _write(self, span: RingSpan, number: int, values: "array[float]") -> None:
        body = _SLOT.pack(0, number)[4:] + values.tobytes()
        os.pwrite(self._file, _sealed(body), self._place(span, number))

    def _read(self, span: RingSpan, begin: int, end: int) -> Iterator[tuple[int, "array[float]"]]:
        while begin < end:
            # The slots up to the end of the ring are contiguous.
            count = min(end - begin, span.slots - begin % span.slots)
            region = memoryview(os.pread(self._file, count * self._slot_bytes, self._place(span, begin)))
            for i in range(len(region) // self._slot_bytes):
                slot = region[i * self._slot_bytes : (i + 1) * self._slot_bytes]
                seal, number = _SLOT.unpack_from(slot)
                if number == begin + i and zlib.crc32(slot[4:]) == seal:
                    yield number, array("f", bytes(slot[_SLOT.size :]))
            begin += count

    def _learn(self, names: Columns) -> None:
        """Give each new Service a column, while there are free columns."""
        new = [name for name in names if name not in self._services][: _COLUMNS - len(self._services)]
        if new:
            self._services += new
            self._write_header(self._file)

    def _format(self) -> dict[str, object]:
        return {"format": 1, "width": self._width, "columns": _COLUMNS, "rings": [[s.step_s, s.slots] for s in SPANS]}

    def _write_header(self, file: int) -> None:
        text = json.dumps({**self._format(), "services": self._services}).encode()
        body = _HEAD.pack(0, len(text))[4:] + text
        os.pwrite(file, _sealed(body), 0)

    def _open(self, path: Path) -> int:
        """Open the file of an earlier process; replace it if it cannot be used, and use a nameless file as the last resort."""
        try:
            # Without O_NONBLOCK, opening a FIFO would wait.
            file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            if (services := self._services_of(file)) is not None:
                self._services = services
                return file
            os.close(file)
            print(f"{path}: torn, or of another version; its history is dropped", file=sys.stderr, flush=True)
        except FileNotFoundError:
            pass
        except OSError as error:
            print(f"{path}: {error.strerror}; its history is dropped", file=sys.stderr, flush=True)
        return self._create(path)

    def _services_of(self, file: int) -> list[str] | None:
        """Return the Services in the header of *file*; None if *file* has another format."""
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_size != self.size:
            return None
        header = os.pread(file, _HEADER_BYTES, 0)
        seal, length = _HEAD.unpack_from(header)
        body = header[4 : _HEAD.size + length]
        if zlib.crc32(body) != seal:
            return None
        content = json.loads(body[4:])
        services: list[str] = content.pop("services")
        return services if content == self._format() else None

    def _create(self, path: Path) -> int:
        try:
            draft, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
        except OSError as error:
            return self._create_nameless(path, error)
        try:
            os.ftruncate(draft, self.size)
            self._write_header(draft)
            Path(name).replace(path)
        except OSError as error:
            os.close(draft)
            Path(name).unlink()
            return self._create_nameless(path, error)
        return draft

    def _create_nameless(self, path: Path, error: OSError) -> int:
        print(f"{path}: {error.strerror}; the history ends with this process", file=sys.stderr, flush=True)
        with tempfile.TemporaryFile() as file:
            os.ftruncate(file.fileno(), self.size)
            return os.dup(file.fileno())


def _sealed(body: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(body)) + body
