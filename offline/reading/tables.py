"""Read tables with named columns: text with any of the usual delimiters, and Parquet."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chassis.wire.text import NOT_TEXT
from offline.reading.columns import Mapped, count_known
from offline.reading.faults import DataError
from offline.reading.lines import read_lines, readable
from offline.reading.parquet import MAGIC, read_parquet
from recsys.declaration.values import Malformed

Fields = list[str]
Records = Iterator[tuple[int, Fields | Malformed]]

_ZIP = b"PK\3\4"
_DELIMITERS = ",;\t|"
# A stray quote could otherwise make one field of the rest of the file.
_LONGEST_RECORD_LINES = 100


@dataclass(frozen=True)
class Table:
    """
    A table.

    Attributes:
        header: The names of the columns.
        records: The number of the first line of each record, and its fields as text or its fault. A record has as many
            fields as the header.
    """

    header: list[str]
    records: Records


def open_table(path: Path, mapped: Mapped) -> Table:
    """
    Open the table at *path*; *mapped* helps to find the delimiter of a text.

    Raises:
        DataError: the file cannot be read, or has no header.
    """
    with readable(path) as (raw, _):
        beginning = raw.read(4)
    if beginning == MAGIC:
        header, records = read_parquet(path)
        return Table(header, records)
    lines = read_lines(path)
    number, first = next(lines, (1, ""))
    if beginning == _ZIP:
        raise _not_text(path)
    if isinstance(first, Malformed):
        raise DataError(f"{path}:{number}: {first}")
    if not first:
        raise DataError(f"{path}: is empty; the first line must name the columns")
    if "\r" in first:
        raise DataError(f"{path}: the lines end in CR alone; save the file with the line ends LF or CRLF")
    if NOT_TEXT.search(first.replace("\t", " ")):
        raise _not_text(path)
    try:
        delimiter, header = _read_header(first, mapped)
    except csv.Error as error:
        raise DataError(f"{path}:{number}: the header is not CSV: {error}") from error
    return Table(header, _checked(_read_records(lines, delimiter), columns=len(header)))


def _not_text(path: Path) -> DataError:
    return DataError(f"{path}: is not text; unpack an archive, or save a workbook as CSV")


def _read_header(line: str, mapped: Mapped) -> tuple[str, list[str]]:
    """Return the delimiter with which *line* has most of the known names, and most names if several have as many."""
    headers = {
        delimiter: [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
        for delimiter in _DELIMITERS
    }
    return max(headers.items(), key=lambda each: (count_known(each[1], mapped), len(each[1])))


def _checked(records: Records, *, columns: int) -> Records:
    for number, fields in records:
        if isinstance(fields, Malformed) or len(fields) == columns:
            yield number, fields
        elif len(fields) > 1 or fields[0].strip():
            yield number, Malformed(f"{columns} columns wanted", f", found {len(fields)}")


def _read_records(lines: Iterator[tuple[int, str | Malformed]], delimiter: str) -> Records:
    """Yield the records of *lines*. After a fault, reading goes on with the line that follows the record's first."""
    feed = _Feed(lines)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.begin()
        try:
            fields: Fields | Malformed = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # Python's csv asks for another mode of opening the file.
            fields = Malformed("not CSV: " + ("a CR inside a line" if "new-line" in str(error) else str(error)))
        except Malformed as error:
            fields = error
        if isinstance(fields, Malformed):
            feed.rewind()
        yield feed.number, fields


class _Feed:
    """The lines of one record after another; a record that turns out to be faulty gives back its lines."""

    def __init__(self, lines: Iterator[tuple[int, str | Malformed]]) -> None:
        self._lines = lines
        self._again: list[tuple[int, str | Malformed]] = []
        self._record: list[tuple[int, str | Malformed]] = []

    @property
    def number(self) -> int:
        """The number of the first line of the record."""
        return self._record[0][0]

    def begin(self) -> None:
        """Begin a record."""
        self._record = []

    def rewind(self) -> None:
        """Give back all lines of the record except the first."""
        self._again += self._record[:0:-1]

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        numbered = self._again.pop() if self._again else next(self._lines)
        self._record.append(numbered)
        line = numbered[1]
        if isinstance(line, Malformed):
            raise line
        if len(self._record) > _LONGEST_RECORD_LINES:
            raise Malformed(f"a quoted field is longer than {_LONGEST_RECORD_LINES} lines")
        return line + "\n"
