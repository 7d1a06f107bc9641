"""
Read comma-separated files with a header line.

Interactions: `user_id,item_id[,weight][,timestamp]`, in any order. Items: `item_id[,title][,category]`. Users:
`user_id[,age_group | ,age]`. Other columns are ignored. A timestamp is in seconds since 1970 or in ISO 8601.
"""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from offline.reading.lines import DataError, Line, Row, Source, read_lines
from recsys.features import AGE_GROUPS, group_age
from recsys.ranking.artefact import Item

Record = dict[str, str]


def read_csv(interactions: Path, *, items: Path | None, users: Path | None) -> Source:
    """
    Return the content of the files; rows are read on demand.

    Raises:
        DataError: a file or one of its lines cannot be used.
    """
    return Source(
        _rows(interactions),
        items={item.item_id: item for item in _items(items)} if items else {},
        age_groups=dict(_age_groups(users)) if users else {},
    )


def _rows(path: Path) -> Iterator[Row]:
    for line, record in _records(path, ("user_id", "item_id")):
        yield Row(
            line.id(record["user_id"], "user_id"),
            line.id(record["item_id"], "item_id"),
            line.weight(record["weight"]) if record.get("weight") else 1.0,
            _time_us(line, record["timestamp"]) if record.get("timestamp") else None,
        )


def _items(path: Path) -> Iterator[Item]:
    for line, record in _records(path, ("item_id",)):
        yield Item(line.id(record["item_id"], "item_id"), record.get("title", ""), record.get("category", ""))


def _age_groups(path: Path) -> Iterator[tuple[str, str]]:
    for line, record in _records(path, ("user_id",)):
        user_id = line.id(record["user_id"], "user_id")
        group = record.get("age_group", "")
        if group and group not in AGE_GROUPS:
            raise line.fail(f"age_group must be one of {', '.join(AGE_GROUPS)}, not {group!r}")
        if not group and record.get("age"):
            group = group_age(line.integer(record["age"], "age"))
        if group:
            yield user_id, group


def _records(path: Path, wanted: tuple[str, ...]) -> Iterator[tuple[Line, Record]]:
    header: list[str] = []
    for line in read_lines(path, encoding="utf-8-sig"):
        try:
            (fields,) = csv.reader([line.text], strict=True)
        except csv.Error as error:
            raise line.fail(f"not CSV: {error}") from error
        if not header:
            header = [name.strip() for name in fields]
            if missing := [name for name in wanted if name not in header]:
                raise line.fail(f"the header must name {', '.join(wanted)}; missing: {', '.join(missing)}")
        elif len(fields) != len(header):
            raise line.fail(f"{len(header)} columns wanted, found {len(fields)}")
        else:
            yield line, dict(zip(header, fields, strict=True))
    if not header:
        raise DataError(f"{path}: is empty; the first line must name the columns")


def _time_us(line: Line, text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return line.seconds(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return line.seconds(str(moment.timestamp()))
