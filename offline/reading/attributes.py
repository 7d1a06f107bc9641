"""Read the attributes of items and users from the columns of a table, as the declaration says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from offline.reading.columns import normalise
from offline.reading.faults import DataError
from offline.reading.values import split_values
from recsys.declaration.types import Attribute, AttributeKind
from recsys.declaration.values import CANONICAL

_LONGEST_TEXT = 1000

Values = tuple[str, ...]


@dataclass(frozen=True)
class AttributeColumns:
    """
    The columns of a table that hold attributes.

    Attributes:
        columns: The place and the kind of each attribute, by name.
    """

    columns: Mapping[str, tuple[int, AttributeKind]]

    @classmethod
    def of(
        cls,
        path: Path,
        header: Sequence[str],
        declared: Mapping[str, Attribute],
        *,
        known: Mapping[str, int],
        others: bool = False,
    ) -> "AttributeColumns":
        """
        Find the columns of all attributes in *header*.

        Args:
            path: The file, for messages.
            header: The names of the columns.
            declared: The declared attributes.
            known: The places of the fields that are found by their usual names, such as `category`.
            others: Whether each further column is an attribute with several values.

        Raises:
            DataError: a column that the declaration names is missing.
        """
        places = {normalise(name): place for place, name in enumerate(header)}
        found: dict[str, tuple[int, AttributeKind]] = {}
        for name, attribute in declared.items():
            usual = None if attribute.column else known.get(name)
            place = places.get(normalise(attribute.column or name)) if usual is None else usual
            if place is None and attribute.column:
                raise DataError(
                    f"{path}:1: the header has no column {attribute.column!r}, which the declaration names for the "
                    f"attribute {name}; found: {', '.join(header)}"
                )
            if place is not None:
                found[name] = place, attribute.kind
        further: dict[str, tuple[int, AttributeKind]] = {}
        if others:
            used = {*known.values(), *(place for place, _ in found.values())}
            further = {name: (at, "multi-valued") for at, name in enumerate(header) if name and at not in used}
        return cls(further | found)

    def read(self, fields: Sequence[str]) -> dict[str, Values]:
        """
        Return the values in *fields* by attribute name; attributes without a value are left out.

        Raises:
            Malformed: a number or a time cannot be read.
        """
        named = {name: _READERS[kind](fields[place].strip(), name) for name, (place, kind) in self.columns.items()}
        return {name: values for name, values in named.items() if values}


def _one(canonical: Callable[[str, str], str]) -> Callable[[str, str], Values]:
    return lambda cell, name: (canonical(cell, name),) if cell else ()


_READERS: Mapping[AttributeKind, Callable[[str, str], Values]] = {
    "categorical": lambda cell, _: split_values(cell, separator=None),
    "multi-valued": lambda cell, _: split_values(cell, separator="|"),
    **{kind: _one(canonical) for kind, canonical in CANONICAL.items()},
    "text": lambda cell, _: (cell[:_LONGEST_TEXT],) if cell else (),
}
