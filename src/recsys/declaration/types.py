"""
The declaration of a pipeline: its kinds of events, attributes, rules and training.

A kind of event has a weight. The weights of a user's events with an item add up to the tie between the two. A tie above 0
enters the user's history. Any other tie keeps the item out of the history, out of training, and out of the user's lists.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from recsys.contracts.wire import Condition, Diversity, ItemId, Name
from recsys.declaration.features import Feature, Owner

Counter = Literal["views", "clicks", "purchases"]
AttributeKind = Literal["categorical", "multi-valued", "number", "time", "text"]
Source = Literal["neighbours", "attributes"]
SOURCES: tuple[Source, ...] = ("neighbours", "attributes")

SESSION_END = "session_end"
RANGED: tuple[AttributeKind, ...] = ("number", "time")
# Weights are multiples of 1 / WEIGHT_STEPS. Binary floating point (SQLite's REAL, Redis's HINCRBYFLOAT) then adds them
# exactly, in an import and when a store adds the weights of later events. The order of the additions changes no bit.
WEIGHT_STEPS = 1024

_HEAVIEST = 1000


class EventKind(Struct, frozen=True, forbid_unknown_fields=True):
    """
    A kind of event.

    Attributes:
        weight: The number that an event adds to the tie between its user and its item; below 0 for a dislike or a return.
        counter: The counter of the user to which an event adds 1; None for no counter.
    """

    weight: Annotated[
        float,
        Meta(
            ge=-_HEAVIEST,
            le=_HEAVIEST,
            description="The number that an event adds to the tie between its user and its item; below 0 for a dislike.",
        ),
    ]
    counter: Annotated[Counter | None, Meta(description="The counter of the user to which an event adds 1.")] = None

    @property
    def exact_weight(self) -> float:
        """The weight, rounded to a multiple of 1 / `WEIGHT_STEPS`, so that sums of weights are exact."""
        return round(self.weight * WEIGHT_STEPS) / WEIGHT_STEPS


class Attribute(Struct, frozen=True, forbid_unknown_fields=True):
    """
    An attribute.

    Attributes:
        kind: `categorical` has one value, `multi-valued` several, separated by bars in a file. `number` and `time`
            can be filtered by range. `text` is shown and neither filtered nor learned from.
        column: The column of the file; by default, the column with the attribute's own name, if there is one.
    """

    kind: Annotated[AttributeKind, Meta(description="How values are read and used.")]
    column: Annotated[
        Annotated[str, Meta(min_length=1, max_length=128)] | None,
        Meta(description="Column of the file; by default, the attribute's own name."),
    ] = None


class Items(Struct, frozen=True, forbid_unknown_fields=True):
    """
    The items.

    Attributes:
        attributes: The attributes, by name. `title` is the name that people see.
        other_columns: Whether other columns of the items file are attributes too.
    """

    attributes: dict[Name, Attribute] = {}
    other_columns: Annotated[
        Literal["attributes", "ignored"],
        Meta(description="Whether other columns of the items file are attributes too."),
    ] = "ignored"


class Users(Struct, frozen=True, forbid_unknown_fields=True):
    """
    The users.

    Attributes:
        attributes: The attributes, by name. `age_group` is one of the four features.
    """

    attributes: Annotated[dict[Name, Attribute], Meta(max_length=64)] = {}


class ContextField(Struct, frozen=True, forbid_unknown_fields=True):
    """
    A value that a request to recommend may carry.

    Attributes:
        kind: `categorical` is a string, such as a device; `number` is a number, such as an hour.
    """

    kind: Annotated[Literal["categorical", "number"], Meta(description="A string or a number.")]


class Boost(Condition, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A condition, and the number that is added to the scores of the items that meet it."""

    score: Annotated[float, Meta(ge=-1000, le=1000)]


class DeclaredRules(Struct, frozen=True, forbid_unknown_fields=True):
    """
    The rules of every answer.

    Attributes:
        allow: Conditions that every item meets.
        deny: Conditions that no item meets.
        pins: Items that come first.
        boosts: Numbers that are added to scores.
        caps: The most items of a value in a list, by attribute.
        diversity: Weight of the resemblance to better items, 0 to 1.
        filters: The attributes that a request may filter by; None for all.
    """

    allow: Annotated[list[Condition], Meta(max_length=100)] = []
    deny: Annotated[list[Condition], Meta(max_length=100)] = []
    pins: Annotated[list[ItemId], Meta(max_length=100)] = []
    boosts: Annotated[list[Boost], Meta(max_length=100)] = []
    caps: dict[Name, Annotated[int, Meta(ge=1)]] = {}
    diversity: Diversity = 0.0
    filters: Annotated[list[Name], Meta(max_length=100)] | None = None

    def attributes(self) -> Iterator[str]:
        """Yield the names of the attributes that the rules use."""
        yield from (each.attribute for conditions in self.conditions().values() for each in conditions)
        yield from self.caps

    def conditions(self) -> Mapping[str, Sequence[Condition]]:
        """Return the conditions by the field that holds them."""
        return {"allow": self.allow, "deny": self.deny, "boosts": self.boosts}


class Training(Struct, frozen=True, forbid_unknown_fields=True):
    """
    The sources and the data that `train` may use.

    Attributes:
        sources: Sources that may rank in addition to the factors and popularity.
        min_weight: Rows of the import with a positive weight below it are left out.
        search: Whether to search hyper-parameters first.
    """

    sources: Annotated[list[Source], Meta(max_length=2)] = msgspec.field(default_factory=lambda: list(SOURCES))
    min_weight: Annotated[float, Meta(ge=0)] = 0.0
    search: bool = False


class OwnModel(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    A model of your own.

    Attributes:
        kind: `onnx` for a file that ONNX Runtime runs, `python` for a class.
        path: The file, relative to the declaration. A class gets its content.
        class_: The class, as `module:Class`.
    """

    kind: Annotated[Literal["onnx", "python"], Meta(description="An ONNX file, or a Python class.")]
    path: Annotated[str | None, Meta(description="The file, relative to the declaration.")] = None
    class_: Annotated[str | None, Meta(description="The class, as `module:Class`.")] = msgspec.field(
        name="class", default=None
    )


class OwnRanker(OwnModel, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    A ranker of your own, which scores the candidates of a user instead of the blend.

    Attributes:
        inputs: Names of the columns of an ONNX file's input, in their order. A class names them itself.
    """

    inputs: Annotated[list[Name], Meta(max_length=256, description="Columns of an ONNX file's input, in order.")] = []


class OwnEncoder(OwnModel, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    A user encoder of your own, with the item vectors that belong to it.

    Attributes:
        items: A `.npy` file with the vectors of the items, (I, D) float32, relative to the declaration.
        history: The newest items of the history that the encoder gets.
    """

    items: Annotated[str, Meta(description="A .npy file with the vectors of the items, (I, D) float32.")]
    history: Annotated[int, Meta(ge=1, le=1000, description="Newest items of the history that the encoder gets.")] = 50


class Declaration(Struct, frozen=True, forbid_unknown_fields=True):
    """
    A declaration.

    Attributes:
        events: The kinds of events, by name. `session_end` exists without a declaration.
        items: The items.
        users: The users.
        rules: The rules of every answer.
        training: The sources and the data that training may use.
        context: The values that a request may carry, by name. Without any, the field is not encoded, so that
            declarations in earlier artefacts keep their digests. The same holds for the features.
        features: Features of the ranker, by name.
        ranker: A ranker of your own; None for the project's.
        encoder: A user encoder of your own; None for the fold-in.
    """

    events: Annotated[dict[Name, EventKind], Meta(min_length=1, max_length=64)]
    items: Items = Items()
    users: Users = Users()
    rules: DeclaredRules = DeclaredRules()
    training: Training = Training()
    context: Annotated[dict[Name, ContextField], Meta(max_length=32)] | UnsetType = UNSET
    features: Annotated[dict[Name, Feature], Meta(max_length=64)] | UnsetType = UNSET
    ranker: OwnRanker | None = None
    encoder: OwnEncoder | None = None

    def without_own_models(self) -> "Declaration":
        """Return the declaration as a training can follow it."""
        return msgspec.structs.replace(self, ranker=None, encoder=None)

    @property
    def digest(self) -> str:
        """The SHA-256 of the content. Equal declarations have equal digests."""
        return hashlib.sha256(self.encode()).hexdigest()

    def kind_of(self, name: str) -> AttributeKind | None:
        """Return the kind of the items' attribute *name*; None if items cannot have it."""
        if found := self.items.attributes.get(name):
            return found.kind
        return "multi-valued" if self.items.other_columns == "attributes" else None

    def kind_of_any(self, owner: Owner, name: str) -> str | None:
        """Return the kind of the attribute *name* of *owner*; None if the owner cannot have it."""
        if owner == "item":
            return self.kind_of(name)
        found = self.users.attributes.get(name) if owner == "user" else (self.context or {}).get(name)
        return found.kind if found else None

    def encode(self) -> bytes:
        """Return the content as JSON, with sorted keys; a declaration without own models has no keys for them."""
        content = msgspec.to_builtins(self)
        return msgspec.json.encode({key: part for key, part in content.items() if part is not None}, order="sorted")

    def describe_difference(
        self, other: "Declaration", *, mine: str, theirs: str, features: bool = False
    ) -> str | None:
        """
        Name the first field in which the *other* declaration differs; None if both fit together.

        Rules, training and own models may differ: rules take effect without training, a training ends before its model
        serves, and the artefact holds the own models that serve.

        Args:
            other: The other declaration.
            mine: The holder of this declaration, for the message.
            theirs: The holder of the other one.
            features: Compare the features too, on which a model depends and a store does not.
        """
        parts = ("events", "items", "users", "context", *(("features",) if features else ()))
        one, two = ({part: msgspec.to_builtins(getattr(each, part) or {}) for part in parts} for each in (self, other))
        found = next(_differences(one, two, ""), None)
        if found is None:
            return None
        path, here, there = found
        return f"{path} is {_shown(here)} in {mine} and {_shown(there)} in {theirs}"


_ABSENT = object()


def _differences(one: Any, two: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        for name in sorted({*one, *two}):
            yield from _differences(one.get(name, _ABSENT), two.get(name, _ABSENT), f"{path}.{name}".lstrip("."))
    elif one != two:
        yield path, one, two


def _shown(value: Any) -> str:
    return "absent" if value is _ABSENT else msgspec.json.encode(value).decode()
