"""The interactions a command is told to use: a file in one of the formats, or the demo data."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from offline.demo import make_demo
from offline.reading.csv_files import read_csv
from offline.reading.lastfm import read_lastfm
from offline.reading.lines import Row, Source
from offline.reading.movielens import read_movielens
from recsys.records import UserRecord

FORMATS: Mapping[str, Callable[..., Source]] = {
    "csv": read_csv,
    "movielens": read_movielens,
    "lastfm": read_lastfm,
}


@dataclass(frozen=True)
class DataSet:
    """
    What was asked for.

    Attributes:
        name: For manifests and reports.
        source: Rows, titles, age groups.
        records: What a store would hold of it where that is more than rows tell (the demo's clicks and purchases).
    """

    name: str
    source: Source
    records: list[UserRecord] | None = None


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which data."""
    parser.add_argument("--interactions", type=Path, metavar="FILE", help="who did what; the demo data where absent")
    parser.add_argument("--items", type=Path, metavar="FILE", help="titles and categories")
    parser.add_argument("--users", type=Path, metavar="FILE", help="ages")
    parser.add_argument("--format", choices=sorted(FORMATS), default="csv")
    parser.add_argument(
        "--min-weight", type=float, default=0.0, metavar="W", help="leave weaker rows out, as ratings below 4"
    )


def check_data_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End the program where options make no sense together."""
    if not options.interactions and (options.items or options.users or options.min_weight):
        parser.error("--items, --users and --min-weight go with --interactions")


def load_data(options: argparse.Namespace) -> DataSet:
    """
    Return the data *options* name; rows of a file are read as they are asked for.

    Raises:
        DataError: a file cannot be used.
    """
    if not options.interactions:
        demo = make_demo()
        source = Source(
            _demo_rows(demo.records),
            items={item.item_id: item for item in demo.items},
            age_groups={record.user_id: record.age_group for record in demo.records},
        )
        return DataSet("demo", source, demo.records)
    source = FORMATS[options.format](options.interactions, items=options.items, users=options.users)
    rows = (row for row in source.rows if row.weight >= options.min_weight)
    return DataSet(options.format, Source(rows, items=source.items, age_groups=source.age_groups))


def _demo_rows(records: list[UserRecord]) -> Iterator[Row]:
    """Yield the demo's ties as if a file told them: one row each, with the time of its newest interaction."""
    for record in records:
        for item in record.history:
            yield Row(record.user_id, item.item_id, item.weight, item.time_us)
