"""Load the interactions that a command's options name: a file in one of the formats, or the demo data."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from offline.demo import make_demo
from offline.reading.columns import Mapped
from offline.reading.csv_files import read_csv
from offline.reading.faults import DataError, Faults
from offline.reading.lastfm import read_lastfm
from offline.reading.lines import Row, Source
from offline.reading.movielens import read_movielens
from recrank.artefact import Item
from recsys.declaration.reader import default_declaration
from recsys.declaration.types import Declaration
from recsys.records import AGE_GROUP, UserRecord

FORMATS: Mapping[str, Callable[..., Source]] = {
    "csv": read_csv,
    "movielens": read_movielens,
    "lastfm": read_lastfm,
}


@dataclass(frozen=True)
class DataOptions:
    """
    The files to load.

    Attributes:
        interactions: File of interactions; None for the demo data.
        items: File of titles and categories.
        users: File of ages and attributes of users.
        format: Format of these files, a key of `FORMATS`.
        min_weight: Rows of lower weight are ignored.
        map: Columns of a csv file, by field.
        skip_faults: Number of faulty lines to leave out.
        declaration: The kinds of events and the attributes; None for the demo's.
    """

    interactions: Path | None = None
    items: Path | None = None
    users: Path | None = None
    format: str = "csv"
    min_weight: float = 0.0
    map: Mapped = field(default_factory=dict)
    skip_faults: int = 0
    declaration: Declaration | None = None

    @property
    def declared(self) -> Declaration:
        """The declaration, or the demo's."""
        return self.declaration or default_declaration()

    @property
    def least_weight(self) -> float:
        """The least positive weight of a row, by the option or the declaration."""
        return self.min_weight or self.declared.training.min_weight


@dataclass(frozen=True)
class DataSet:
    """
    The data that the options name.

    Attributes:
        name: Name of the data in manifests and reports.
        source: Rows, items, age groups and attributes of users.
        records: User records of the demo, which also count clicks and purchases; None for data from a file.
    """

    name: str
    source: Source
    records: list[UserRecord] | None = None


def load_data(options: DataOptions) -> DataSet:
    """
    Return the data that *options* name; the rows of a file are read on demand.

    Raises:
        DataError: a file cannot be used.
    """
    if not options.interactions:
        if difference := default_declaration().describe_difference(
            options.declared, mine="the demo data", theirs="--declaration"
        ):
            raise DataError(f"{difference}; name your own data with --interactions")
        demo = make_demo()
        source = Source(
            _demo_rows(demo.records),
            items={item.item_id: item for item in demo.items},
            age_groups={record.user_id: record.age_group for record in demo.records},
        )
        return DataSet("demo", source, demo.records)
    source = _read(options, interactions=options.interactions)
    rows = _reported(source, least=options.least_weight)
    return DataSet(
        options.format, Source(rows, items=source.items, age_groups=source.age_groups, attributes=source.attributes)
    )


def _read(options: DataOptions, *, interactions: Path | None) -> Source:
    only_csv = {"mapped": options.map, "declaration": options.declared} if options.format == "csv" else {}
    return FORMATS[options.format](
        interactions,
        items=options.items,
        users=options.users,
        faults=Faults(allowed=options.skip_faults),
        **only_csv,
    )


def _reported(source: Source, *, least: float) -> Iterator[Row]:
    """Yield the rows of at least the weight *least* or below 0, then print the faulty lines that were left out."""
    yield from (row for row in source.rows if row.weight >= least or row.weight < 0)
    if source.faults.count:
        for line in source.faults.describe():
            print(line, file=sys.stderr)
        print(f"left out faulty lines: {source.faults.count:,}", file=sys.stderr)


def load_items(options: DataOptions) -> dict[str, Item]:
    """
    Return the items that *options* name, by id; nothing if they name no items file.

    Raises:
        DataError: the file cannot be used.
    """
    if not options.items:
        return {}
    source = _read(options, interactions=None)
    source.faults.check()
    return source.items


def load_users(options: DataOptions) -> dict[str, dict[str, tuple[str, ...]]]:
    """
    Return the values of the attributes of the users that *options* name, the age group among them, by user id.

    Raises:
        DataError: the file cannot be used.
    """
    source = _read(options, interactions=None)
    source.faults.check()
    found = {user_id: {each.name: each.values for each in told} for user_id, told in source.attributes.items()}
    for user_id, group in source.age_groups.items():
        found.setdefault(user_id, {})[AGE_GROUP] = (group,)
    return found


def _demo_rows(records: list[UserRecord]) -> Iterator[Row]:
    """Yield one row per pair of user and item, as from a file, with the time of the newest interaction."""
    for record in records:
        for item in record.history:
            yield Row(record.user_id, item.item_id, item.weight, item.time_us)
