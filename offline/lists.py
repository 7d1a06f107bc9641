"""The formats of exported lists: CSV and JSON lines, which grow user by user, and Parquet, made from JSON lines."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec

from offline.reading.faults import DataError
from offline.reading.lines import INSTALL_ARROW
from recsys.contracts.wire import Recommendations

_HEADER = b"user_id,rank,item_id,score\n"
_ROW_GROUP_USERS = 10_000
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Recommendations).decode


@dataclass(frozen=True)
class Lists:
    """
    A format.

    Attributes:
        encode: Returns the bytes of some lists; `first` is true for the first lists of a file.
        finish: Makes the file from the partial file; the file appears whole.
    """

    encode: Callable[..., bytes]
    finish: Callable[[Path, Path], None]


def _as_lines(lists: Sequence[Recommendations], *, first: bool) -> bytes:  # noqa: ARG001 - for formats with a header
    return b"".join(_encode(each) + b"\n" for each in lists)


def _as_csv(lists: Sequence[Recommendations], *, first: bool) -> bytes:
    rows = (
        b"%b,%d,%b,%b\n" % (_quoted(each.user_id), rank, _quoted(item.item_id), _encode(item.score))
        for each in lists
        for rank, item in enumerate(each.recommendations, 1)
    )
    return (_HEADER if first else b"") + b"".join(rows)


def _quoted(text: str) -> bytes:
    # Ids have no line ends.
    return ('"' + text.replace('"', '""') + '"' if "," in text or '"' in text else text).encode()


def _rename(partial: Path, target: Path) -> None:
    with partial.open("rb") as whole:
        os.fsync(whole.fileno())
    partial.replace(target)


def _write_parquet(partial: Path, target: Path) -> None:
    check_parquet(target)
    import pyarrow as pa  # noqa: PLC0415 - an optional package
    from pyarrow.parquet import ParquetWriter  # noqa: PLC0415 - the same

    columns = [("user_id", pa.string()), ("rank", pa.int16()), ("item_id", pa.string()), ("score", pa.float64())]
    schema = pa.schema(columns)
    draft = target.with_name(target.name + ".draft")
    with ParquetWriter(draft, schema) as writer:
        for part in _columns(partial):
            writer.write_table(pa.table(part, schema=schema))
    _rename(draft, target)


def _columns(partial: Path) -> Iterator[list[list[object]]]:
    with partial.open("rb") as lines:
        while some := list(islice(lines, _ROW_GROUP_USERS)):
            rows = [
                (each.user_id, rank, item.item_id, item.score)
                for each in map(_decode, some)
                for rank, item in enumerate(each.recommendations, 1)
            ]
            yield [list(column) for column in zip(*rows, strict=True)] or [[]] * 4


def check_parquet(target: Path) -> None:
    """
    Check that Parquet can be written.

    Raises:
        DataError: pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: F401, ICN001, PLC0415 - an optional package
    except ImportError as error:
        raise DataError(f"{target}: Parquet needs the package pyarrow; {INSTALL_ARROW}") from error


FORMATS: Mapping[str, Lists] = {
    ".csv": Lists(_as_csv, _rename),
    ".jsonl": Lists(_as_lines, _rename),
    ".parquet": Lists(_as_lines, _write_parquet),
}
