"""
Read tables with named columns: comma-separated files, other delimiters, and Parquet.

Interactions: `user_id,item_id[,weight][,timestamp][,kind]`, in any order. Users: `user_id[,age_group | ,age]` and
the attributes that the declaration names. Other columns of these files are ignored. `offline/reading/columns.py` lists
the other names of columns, among them those of MovieLens' `ratings.csv` and `movies.csv`.

Items: `item_id[,title]` and the attributes that the declaration names. In the demo's declaration, every other column, for
example `brand`, is an attribute whose cells may hold several values, separated by bars, as MovieLens' genres.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from offline.reading.attributes import AttributeColumns
from offline.reading.columns import INTERACTION, Mapped, check_mapped, find_columns
from offline.reading.faults import Faults, parse_each
from offline.reading.lines import ImportedUser, Row, Source, checked_source
from offline.reading.tables import open_table
from offline.reading.values import Ids, parse_integer, parse_past_us, parse_weight
from recrank.artefact import Item
from recsys.contracts.wire import MAX_VALUES
from recsys.declaration.reader import default_declaration
from recsys.declaration.types import Attribute, Declaration, EventKind, Items
from recsys.declaration.values import Malformed
from recsys.features import AGE_GROUPS, group_age
from recsys.records import AGE_GROUP

# The fields of an items file that are found by their usual names.
_USUAL = ("title", "category")


def read_csv(
    interactions: Path | None,
    *,
    items: Path | None,
    users: Path | None,
    mapped: Mapped | None = None,
    faults: Faults | None = None,
    declaration: Declaration | None = None,
) -> Source:
    """
    Return the content of the files; rows are read on demand.

    Args:
        interactions: The file of interactions; None for no rows.
        items: The file of items.
        users: The file of users.
        mapped: The names of columns, by field.
        faults: Collects the faulty lines; none is allowed by default.
        declaration: The kinds of events and the attributes; the demo's by default.

    Raises:
        DataError: a file or one of its lines cannot be used.
    """
    declaration = declaration or default_declaration()
    own = {name: declaration.items.attributes.get(name) for name in _USUAL}
    own[AGE_GROUP] = declaration.users.attributes.get(AGE_GROUP)
    mapped = {**{name: (each.column,) for name, each in own.items() if each and each.column}, **(mapped or {})}
    faults = faults or Faults()
    return checked_source(
        _rows(interactions, mapped, faults, declaration.events) if interactions else iter(()),
        items=_items(items, mapped, faults, declaration.items) if items else None,
        users=_users(users, mapped, faults, declaration.users.attributes) if users else None,
        faults=faults,
    )


def _rows(path: Path, mapped: Mapped, faults: Faults, kinds: Mapping[str, EventKind]) -> Iterator[Row]:
    table = open_table(path, mapped)
    check_mapped(path, table.header, INTERACTION, mapped=mapped)
    columns = find_columns(path, table.header, INTERACTION, required=("user", "item"), mapped=mapped)
    user, item, weight, time, kind = (columns.get(field) for field in INTERACTION)
    users, items = Ids("user_id"), Ids("item_id")

    def parse(fields: Sequence[str]) -> Row:
        return Row(
            users[fields[user or 0]],
            items[fields[item or 0]],
            parse_weight(fields[weight]) if weight is not None and fields[weight] else 1.0,
            parse_past_us(fields[time]) if time is not None and fields[time] else None,
        )

    def parse_kind(fields: Sequence[str]) -> Row:
        row, name = parse(fields), fields[kind or 0].strip()
        if (found := kinds.get(name)) is None:
            raise Malformed(f"the kind must be one of {', '.join(kinds)}", f", not {name[:40]!r}")
        return Row(row.user_id, row.item_id, row.weight * found.exact_weight, row.time_us, found.counter)

    return parse_each(table.records, parse if kind is None else parse_kind, path=path, faults=faults)


def _items(path: Path, mapped: Mapped, faults: Faults, declared: Items) -> Iterator[Item]:
    table = open_table(path, mapped)
    check_mapped(path, table.header, _USUAL, mapped=mapped)
    columns = find_columns(path, table.header, ("item", *_USUAL), required=("item",), mapped=mapped)
    item, title = columns["item"], columns.get("title")
    attributes = AttributeColumns.of(
        path,
        table.header,
        {name: each for name, each in declared.attributes.items() if name != "title"},
        known=columns,
        others=declared.other_columns == "attributes",
    )
    ids = Ids("item_id")

    def parse(fields: Sequence[str]) -> Item:
        return Item(
            ids[fields[item]],
            fields[title] if title is not None else "",
            attributes.read(fields),
        )

    return parse_each(table.records, parse, path=path, faults=faults)


def _users(path: Path, mapped: Mapped, faults: Faults, declared: Mapping[str, Attribute]) -> Iterator[ImportedUser]:
    table = open_table(path, mapped)
    check_mapped(path, table.header, ("age", "age_group"), mapped=mapped)
    columns = find_columns(path, table.header, ("user", "age_group", "age"), required=("user",), mapped=mapped)
    own = {name: each for name, each in declared.items() if name != AGE_GROUP}
    attributes = AttributeColumns.of(path, table.header, own, known={})
    ids = Ids("user_id")

    def parse(fields: Sequence[str]) -> ImportedUser:
        found = {field: fields[place] for field, place in columns.items()}
        group = _age_group(found.get("age_group", ""), found.get("age", ""))
        values = attributes.read(fields)
        if any(len(each) > MAX_VALUES for each in values.values()):
            raise Malformed(f"an attribute of a user must have at most {MAX_VALUES} values")
        return ImportedUser(ids[found["user"]], group, values)

    return parse_each(table.records, parse, path=path, faults=faults)


def _age_group(group: str, age: str) -> str:
    if group and group not in AGE_GROUPS:
        raise Malformed(f"age_group must be one of {', '.join(AGE_GROUPS)}", f", not {group[:40]!r}")
    return group or (group_age(parse_integer(age, "age")) if age else "")
