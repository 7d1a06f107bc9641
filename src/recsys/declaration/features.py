"""
The declared features of a ranker: their kinds, and the fields of each kind.

    attribute    a value of the item, of the user or of the context
    counter      a counter of the user
    rate         an average of the user's sessions
    recency      days since the user's newest interaction
    time_since   days since a time of the item
    match        how the item fits the user's history, or an attribute of the user
    popularity   users of the item in the newest days of the training data
    hour         hour of the request, 0 to 23, UTC
    weekday      day of the request, 0 for Monday to 6, UTC
    python       a class of the team's own
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct

from chassis.wire.problems import Fault
from recsys.contracts.wire import Name
from recsys.declaration.classes import NO_PATH, PATH

FeatureKind = Literal[
    "attribute", "counter", "rate", "recency", "time_since", "match", "popularity", "hour", "weekday", "python"
]
Owner = Literal["item", "user", "context"]
COUNTERS = ("purchases",)
RATES = ("session_duration", "engagement")
# The columns that every model has (`recrank.columns`); those of its neighbours are `neighbours_1` and so on.
RESERVED = ("blend", "factors", "popularity", "recent_popularity", "history_length")

_WORDS, _NUMBERS = ("categorical", "multi-valued"), ("number", "time")

NAME = re.compile(r"[a-z][a-z0-9_]*")
MISNAMED = "must be named with small letters, digits and underscores, beginning with a letter"
# The fields of each kind, and whether the kind needs them. Every kind has `missing` too.
_FIELDS: Mapping[FeatureKind, Mapping[str, bool]] = {
    "attribute": {"of": True, "attribute": True, "values": False},
    "counter": {"name": True},
    "rate": {"name": True},
    "recency": {},
    "time_since": {"attribute": True},
    "match": {"attribute": True, "user_attribute": False},
    "popularity": {"days": True},
    "hour": {},
    "weekday": {},
    "python": {"class": True},
}


class Feature(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename={"class_": "class"}):
    """
    A feature of a ranker.

    Attributes:
        kind: How the feature is computed.
        of: The owner of the *attribute* of the kind `attribute`.
        attribute: Name of an attribute of the owner; for other kinds, of the items.
        values: Words of an attribute; the feature is the place of the value in this list, from 1 on, or 0.
        name: Name of a counter or of a rate.
        user_attribute: The attribute of the user that a match compares; None for the items of the history.
        days: Days that a popularity counts, back from the newest interaction.
        class_: Module and name of the class, such as `shop.features:Margin`.
        missing: The feature if the value is absent.
    """

    kind: FeatureKind
    of: Owner | None = None
    attribute: Name | None = None
    values: Annotated[list[Annotated[str, Meta(min_length=1, max_length=128)]], Meta(max_length=1000)] = []
    name: Name | None = None
    user_attribute: Name | None = None
    days: Annotated[float, Meta(ge=0.01, le=36_500)] | None = None
    class_: Annotated[str, Meta(max_length=200)] | None = None
    missing: Annotated[float, Meta(ge=-1e9, le=1e9)] = -1.0

    def given(self) -> set[str]:
        """Return the names of the fields that the declaration sets, without `kind` and `missing`."""
        values = {"class": self.class_, **{name: getattr(self, name) for name in self.__struct_fields__[1:-2]}}
        return {name for name, value in values.items() if value not in (None, [])}


KindOf = Callable[[Owner, str], str | None]


def find_faults(features: Mapping[str, Feature], *, kind_of: KindOf) -> Iterator[Fault]:
    """Yield every fault of *features*; *kind_of* returns the kind of an owner's attribute, or None without it."""
    for name, feature in features.items():
        path = f"$.features.{name}"
        if not NAME.fullmatch(name):
            yield Fault(path, MISNAMED)
        elif name in RESERVED or name.startswith("neighbours_"):
            yield Fault(path, "is the name of a column that every model has; choose another name")
        fields = _FIELDS[feature.kind]
        for field in sorted(feature.given() - fields.keys()):
            yield Fault(f"{path}.{field}", f"does not belong to the kind {feature.kind!r}")
        absent = sorted({field for field, is_needed in fields.items() if is_needed} - feature.given())
        for field in absent:
            yield Fault(f"{path}.{field}", f"is missing; the kind {feature.kind!r} needs it")
        if not absent:
            yield from _in_values(feature, path, kind_of)


def _in_values(feature: Feature, path: str, kind_of: KindOf) -> Iterator[Fault]:
    match feature.kind:
        case "counter" if feature.name not in COUNTERS:
            yield Fault(f"{path}.name", f"must be one of: {', '.join(COUNTERS)}")
        case "rate" if feature.name not in RATES:
            yield Fault(f"{path}.name", f"must be one of: {', '.join(RATES)}")
        case "python" if not PATH.fullmatch(feature.class_ or ""):
            yield Fault(f"{path}.class", NO_PATH)
        case "time_since":
            yield from _not_of(("time",), feature.attribute, "item", kind_of, f"{path}.attribute")
        case "match":
            yield from _not_of(_WORDS, feature.attribute, "item", kind_of, f"{path}.attribute")
            if feature.user_attribute is not None:
                yield from _not_of(_WORDS, feature.user_attribute, "user", kind_of, f"{path}.user_attribute")
        case "attribute":
            yield from _in_attribute(feature, path, kind_of)


def _in_attribute(feature: Feature, path: str, kind_of: KindOf) -> Iterator[Fault]:
    owner = feature.of or "item"
    if faults := list(_not_of((*_WORDS, *_NUMBERS), feature.attribute, owner, kind_of, f"{path}.attribute")):
        yield from faults
    elif kind_of(owner, feature.attribute or "") in _WORDS:
        if not feature.values:
            yield Fault(f"{path}.values", f"is missing; {feature.attribute} has words, and the list numbers them")
    elif feature.values:
        yield Fault(f"{path}.values", f"must be absent: {feature.attribute} is a number")


def _not_of(usable: Sequence[str], name: str | None, owner: Owner, kind_of: KindOf, path: str) -> Iterator[Fault]:
    found = kind_of(owner, name or "")
    if found is None:
        yield Fault(path, f"must be a declared attribute of the {owner}; {name} is not")
    elif found not in usable:
        yield Fault(path, f"must be of the kind {' or '.join(usable)}; {name} is of the kind {found}")
