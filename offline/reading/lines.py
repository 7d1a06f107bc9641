"""Read the lines of a file, which may be compressed, and show the progress."""

import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from msgspec import Struct

from offline.progress import progress
from offline.reading.faults import DataError, Faults
from recrank.artefact import Item
from recsys.declaration.types import Counter
from recsys.declaration.values import Malformed
from recsys.records import UserAttribute, imported

__all__ = ["DataError", "Faults", "ImportedUser", "Row", "Source", "read_lines"]

INSTALL_ARROW = "install it, or let ./run.sh install it for a name that ends in .zst or .parquet"

_LONGEST_LINE = 1024 * 1024
_SHOW_EVERY = 4096
_BUFFER_BYTES = 1024 * 1024
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Row(Struct, frozen=True, gc=False):
    """
    An interaction: a line of an interaction file.

    Attributes:
        user_id: The user.
        item_id: The item.
        weight: Amount that the row adds to the tie between the two.
        time_us: Time in microseconds since the epoch, or None.
        counter: The counter of the user to which the row adds 1; None for no counter.
    """

    user_id: str
    item_id: str
    weight: float
    time_us: int | None
    counter: Counter | None = "views"


class ImportedUser(Struct, frozen=True, gc=False):
    """
    A user: a line of a users file.

    Attributes:
        user_id: The user.
        age_group: The age group; "" if it is unknown.
        values: The values of the declared attributes, by name.
    """

    user_id: str
    age_group: str
    values: Mapping[str, tuple[str, ...]] = {}


@dataclass(frozen=True)
class Source:
    """
    The data of an import: the interactions, the known items by id, and the known age groups and attributes by user id.

    Reading the last of the rows raises DataError if the files have more faulty lines than *faults* allows.
    """

    rows: Iterator[Row]
    items: dict[str, Item] = field(default_factory=dict)
    age_groups: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, tuple[UserAttribute, ...]] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)


def checked_source(
    rows: Iterator[Row], *, faults: Faults, items: Iterator[Item] | None, users: Iterator[ImportedUser] | None
) -> Source:
    """Read *items* and *users*, and return the source that checks the faults of all files after the last row."""

    def checked() -> Iterator[Row]:
        yield from rows
        faults.check()

    known = list(users or ())
    return Source(
        checked(),
        items={item.item_id: item for item in items or ()},
        age_groups={user.user_id: user.age_group for user in known if user.age_group},
        attributes={user.user_id: imported(user.values) for user in known if user.values},
        faults=faults,
    )


def read_lines(path: Path, *, encoding: str = "utf-8") -> Iterator[tuple[int, str | Malformed]]:
    """
    Yield the number and the text of each line without its end. Blank lines are left out.

    Files compressed with gzip or Zstandard are decompressed. A line that is not in *encoding* is yielded as an error.

    Raises:
        DataError: the file cannot be read, or is not text.
    """
    for number, content in enumerate(_read_content(path), 1):
        if not content.isspace():
            yield number, _decode(content, encoding)


def _decode(content: bytes, encoding: str) -> str | Malformed:
    try:
        return content.decode(encoding).rstrip("\r\n")
    except UnicodeDecodeError as error:
        return Malformed(
            f"not {encoding.upper()}", f" at byte {error.start + 1} of the line; save the file in {encoding.upper()}"
        )


def _read_content(path: Path) -> Iterator[bytes]:
    with (
        readable(path) as (raw, size),
        progress(f"reading {path.name}", size, "B") as show,
        _unpacked(raw, path) as unpacked,
    ):
        number = 0
        while content := unpacked.readline(_LONGEST_LINE):
            number += 1
            if number == 1:
                content = _without_mark(content, path)
            if len(content) == _LONGEST_LINE:
                raise DataError(f"{path}:{number}: the line is longer than 1 MiB; check that the file is text")
            if number % _SHOW_EVERY == 0:
                show(raw.tell())
            yield content
        show(size)


@contextmanager
def readable(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """
    Open *path* and return the file and its size.

    Raises:
        DataError: the file cannot be opened or read, also later in the block.
    """
    try:
        with path.open("rb") as raw:
            if not raw.seekable():
                raise DataError(f"{path}: is a pipe; save its output in a file")
            yield raw, path.stat().st_size
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or f"cannot be decompressed: {error}; copy or compress the file again"
        raise DataError(f"{path}: {reason}") from error


def _without_mark(content: bytes, path: Path) -> bytes:
    if content.startswith(_UTF16):
        raise DataError(f"{path}: the text is in UTF-16; save it in UTF-8")
    if content.startswith(_GZIP):
        raise DataError(f"{path}: is compressed twice; decompress it once")
    return content.removeprefix(b"\xef\xbb\xbf")


def _unpacked(raw: IO[bytes], path: Path) -> io.BufferedIOBase:
    beginning = raw.read(len(_ZSTD))
    raw.seek(0)
    if path.suffix == ".gz" or beginning.startswith(_GZIP):
        return io.BufferedReader(cast("io.RawIOBase", gzip.open(raw)), _BUFFER_BYTES)
    if path.suffix == ".zst" or beginning == _ZSTD:
        return _zstd(raw, path)
    return cast("io.BufferedIOBase", raw)


def _zstd(raw: IO[bytes], path: Path) -> io.BufferedIOBase:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional package
    except ImportError as error:
        raise DataError(f"{path}: Zstandard needs the package pyarrow; {INSTALL_ARROW}") from error
    return io.BufferedReader(pa.CompressedInputStream(raw, "zstd"), _BUFFER_BYTES)
