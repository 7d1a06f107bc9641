"""Read Parquet files, with the optional package pyarrow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from offline.progress import progress
from offline.reading.faults import DataError
from offline.reading.lines import INSTALL_ARROW
from recsys.declaration.values import Malformed

MAGIC = b"PAR1"
_BATCH_ROWS = 16_384


def read_parquet(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str] | Malformed]]]:
    """
    Return the names of the columns, and the numbered rows as text; the first row has the number 1.

    Raises:
        DataError: the file cannot be read, or pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional package
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415 - the same
    except ImportError as error:
        raise DataError(f"{path}: Parquet needs the package pyarrow; {INSTALL_ARROW}") from error
    try:
        file = ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from error
    return file.schema_arrow.names, _rows(path, file, pa)


def _rows(path: Path, file: Any, pa: Any) -> Iterator[tuple[int, list[str] | Malformed]]:
    done = 0
    with file, progress(f"reading {path.name}", file.metadata.num_rows, " rows") as show:
        try:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                columns = [_as_text(column, pa) for column in batch.columns]
                for number, fields in enumerate(zip(*columns, strict=True), done + 1):
                    yield number, list(fields)
                done += batch.num_rows
                show(done)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: cannot be read as Parquet after row {done}: {error}") from error


def _as_text(column: Any, pa: Any) -> list[str]:
    """Return *column* as text: no value as empty text, times in ISO 8601, and lists as their first entries."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz and "UTC"), safe=False)
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        return [""] * len(column)
    return [text or "" for text in column.cast(pa.string()).to_pylist()]
