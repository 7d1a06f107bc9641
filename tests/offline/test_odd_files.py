"""Files that are no table: the message names the file and the remedy, and shows no binary data."""

import gzip
import os
from pathlib import Path

import pyarrow as pa
import pytest

from offline.reading.csv_files import read_csv
from offline.reading.faults import DataError

pytestmark = pytest.mark.may_block

TABLE = b"user_id,item_id\nann,tea\n"


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(read_csv(path, items=None, users=None).rows)
    message = str(caught.value).removeprefix(str(path))
    assert message.replace("\n", "").isprintable()
    return message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04\x14\x00" + b"x" * 200, ": is not text; unpack an archive, or save a workbook as CSV"),
        (b"PK\x03\x04\xff\xfe" + b"x" * 200, ": is not text; unpack an archive, or save a workbook as CSV"),
        (bytes(5000), ": is not text; unpack an archive, or save a workbook as CSV"),
        (b"user_id\x00,item_id\nu,i\n", ": is not text; unpack an archive, or save a workbook as CSV"),
        (TABLE.replace(b"\n", b"\r"), ": the lines end in CR alone; save the file with the line ends LF or CRLF"),
        (b"x" * 200_000 + b",user_id\n", ":1: the header is not CSV: field larger than field limit (131072)"),
        (gzip.compress(TABLE) + b"more", ": cannot be decompressed: Not a gzipped file (b'mo'); copy or compress the file again"),
        (gzip.compress(TABLE)[:-9], ": cannot be decompressed: Compressed file ended before the end-of-stream marker was reached; copy or compress the file again"),
        (gzip.compress(gzip.compress(TABLE)), ": is compressed twice; decompress it once"),
        (bytes(pa.compress(TABLE, codec="zstd", asbytes=True)) + b"more", ": cannot be decompressed: ZSTD decompress failed: Unknown frame descriptor; copy or compress the file again"),
    ],
    ids=["zip", "zip of bytes", "zeros", "zero in the header", "old line ends", "long header", "gzip and more", "half of gzip", "gzip twice", "zstd and more"],
)  # fmt: skip
def test_a_file_that_is_no_table_is_refused(tmp_path, content, message):
    """No exception of a library reaches the user, and no row is read."""
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    assert refusal(path) == message


def test_a_pipe_is_refused(tmp_path):
    """The file is read more than once."""
    path = tmp_path / "a.csv"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    try:
        assert refusal(path) == ": is a pipe; save its output in a file"
    finally:
        os.close(writer)


def test_what_a_german_spreadsheet_writes_is_explained(tmp_path):
    """The first of each kind of fault says what to change."""
    path = tmp_path / "a.csv"
    path.write_bytes("user_id;item_id;weight\nann;tea;1,5\nj\xfcrgen;tea;2\n".encode("latin-1"))
    assert refusal(path).splitlines()[:2] == [
        ":2: the weight must be a number above 0, not '1,5'; write decimals with a point",
        f"{path}:3: not UTF-8 at byte 2 of the line; save the file in UTF-8",
    ]


def test_a_header_without_the_fields_is_shown_in_part(tmp_path):
    """Of many and long names, the first are listed."""
    path = tmp_path / "a.csv"
    path.write_text(",".join(["n" * 1000, *(f"c{n}" for n in range(30))]) + "\n")
    found = refusal(path).partition("found: ")[2]
    assert found.startswith("n" * 40 + "…, c0, c1, ")
    assert "c18, and 11 more; name other columns" in found


def test_a_line_with_a_foreign_line_end_is_a_fault_of_the_line(tmp_path):
    """The lines around it are read."""
    path = tmp_path / "a.csv"
    path.write_bytes(TABLE + b"ben,tea\rcarl,tea\n" + b"dora,tea\n")
    assert refusal(path).startswith(":3: not CSV: a CR inside a line")
