"""List all faults of a JSON body, by the type that it should have."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Annotated, Any

import msgspec
from msgspec import Raw, Struct, inspect

from chassis.wire.event_rules import NOT_A_TIME
from chassis.wire.json_text import (
    ARRAY,
    BOOLEAN,
    INTEGER,
    LONG_BYTES,
    NOT_DECODED,
    NUMBER,
    OBJECT,
    STRING,
    check_encoding,
    explain_syntax,
    first_items,
    has_more,
    kind_of,
    outside_strings,
    read_object,
    skip,
)
from chassis.wire.problems import Fault
from chassis.wire.text import FORBIDDEN, NOT_TEXT, shown

_MOST_NAMES = 1000
_NO_COLONS = bytes(byte for byte in range(256) if byte not in b':"')
_KIND_OF: dict[type[inspect.Type], str] = {
    inspect.StrType: STRING,
    inspect.FloatType: NUMBER,
    inspect.BoolType: BOOLEAN,
    inspect.StructType: OBJECT,
    inspect.DictType: OBJECT,
    inspect.ListType: ARRAY,
    inspect.VarTupleType: ARRAY,
}

_text = msgspec.json.Decoder(str).decode
_time = msgspec.json.Decoder(Annotated[datetime, msgspec.Meta(tz=True)]).decode


def find_faults(body: bytes, info: inspect.Type) -> Iterator[Fault]:
    """
    Yield the faults of *body* as a value of the type *info*.

    The types are those of the wire contracts: structs, lists and tuples with a limit, dicts, strings, times with a time zone,
    numbers, booleans, null, unions of one type with null, unions of strings with numbers or structs, raw JSON.

    Raises:
        NotJsonError: *body* is not a JSON text in UTF-8.
        TypeError: *info* is of another kind.
    """
    check_encoding(body)
    text = body.strip(b" \t\r\n")
    try:
        if kind_of(text) != OBJECT:
            skip(text)
        yield from _find(text, info, "$")
    except NOT_DECODED as error:
        raise explain_syntax(body, error) from error


def _find(value: bytes, info: inspect.Type, path: str) -> Iterator[Fault]:
    rule = _RULES.get(type(info))
    if rule is None:
        raise TypeError(f"no rule for {info!r}")
    kind = _KIND_OF.get(type(info))
    if kind and kind_of(value) != kind:
        wanted = "true or false" if kind == BOOLEAN else kind
        return iter([Fault(path, f"must be {wanted}, not {kind_of(value)}")])
    return rule(value, info, path)


def _find_nothing(_value: bytes, _info: inspect.Type, _path: str) -> Iterator[Fault]:
    return iter(())


def _find_in_integer(value: bytes, info: inspect.IntType, path: str) -> Iterator[Fault]:
    # Python refuses integers of thousands of digits, and needs time in the square of the number of digits for others.
    if INTEGER.fullmatch(value):
        yield from _find_outside(int(value), info, path)
    else:
        yield Fault(path, f"must be an integer, not {kind_of(value)}")


def _find_in_literal(value: bytes, info: inspect.LiteralType, path: str) -> Iterator[Fault]:
    if kind_of(value) != STRING or _text(value) not in info.values:
        yield Fault(path, f"must be one of {', '.join(map(repr, info.values))}")


def _find_in_union(value: bytes, info: inspect.UnionType, path: str) -> Iterator[Fault]:
    if value == b"null" and info.includes_none:
        return iter(())
    inner = [member for member in info.types if not isinstance(member, inspect.NoneType)]
    if len(inner) == 1:
        return _find(value, inner[0], path)
    kinds = {_KIND_OF[type(member)]: member for member in inner}
    if (suited := kinds.get(kind_of(value))) is not None:
        return _find(value, suited, path)
    return iter([Fault(path, f"must be {' or '.join(kinds)}, not {kind_of(value)}")])


def _find_in_struct(value: bytes, info: inspect.StructType, path: str) -> Iterator[Fault]:
    members, unknown = split_fields(value, info)
    for field in info.fields:
        if field.encode_name in members:
            yield from _find(bytes(members[field.encode_name]), field.type, f"{path}.{field.encode_name}")
        elif field.required:
            yield Fault(f"{path}.{field.encode_name}", "is missing")
    if info.forbid_unknown_fields:
        for name in unknown:
            yield Fault(f"{path}.{shown(name)}", "is not a known field")


def split_fields(value: bytes, info: inspect.StructType) -> tuple[Mapping[str, Raw], Sequence[str]]:
    """Return the known fields of an object, and its unknown names; if it has very many fields, only the first unknown name."""
    if value.count(b":") <= _MOST_NAMES:
        members = read_object(value)
        return members, [name for name in members if name not in _names(info.cls)]
    known = msgspec.structs.asdict(_known_fields(info.cls, is_closed=False).decode(value))
    return {name: member for name, member in known.items() if member}, _first_unknown(value, info.cls)


def _first_unknown(value: bytes, struct: type[Struct]) -> Sequence[str]:
    try:
        _known_fields(struct, is_closed=True).decode(value)
    except msgspec.ValidationError as error:
        return [str(error).partition("`")[2].rpartition("`")[0]]
    return []


@cache
def _names(struct: type[Struct]) -> Sequence[str]:
    return [field.encode_name for field in msgspec.structs.fields(struct)]


@cache
def _known_fields(struct: type[Struct], *, is_closed: bool) -> msgspec.json.Decoder[Any]:
    """Return a decoder of the fields of *struct* as raw JSON, which refuses other fields if *is_closed*."""
    fields = [(name, Raw, Raw()) for name in _names(struct)]
    return msgspec.json.Decoder(msgspec.defstruct("KnownFields", fields, forbid_unknown_fields=is_closed))


def _find_in_list(value: bytes, info: inspect.ListType | inspect.VarTupleType, path: str) -> Iterator[Fault]:
    if info.max_length is None:
        raise TypeError(f"no limit in {info!r}")
    if has_more(value, info.max_length) or len(items := first_items(value, info.max_length)) > info.max_length:
        yield too_many(path, info.max_length)
        return
    if len(items) < (least := info.min_length or 0):
        yield Fault(path, "must not be empty" if least == 1 else f"must have at least {least} items")
    for index, item in enumerate(items):
        yield from _find(item, info.item_type, f"{path}[{index}]")


def too_many(path: str, most: int) -> Fault:
    """Return the fault of an array with more than *most* items."""
    return Fault(path, f"must have at most {most} items")


def _find_in_text(value: bytes, info: inspect.StrType, path: str) -> Iterator[Fault]:
    text = _text(value)
    if info.min_length and not text:
        yield Fault(path, "must not be empty")
    elif info.max_length is not None and len(text) > info.max_length:
        yield Fault(path, f"must have at most {info.max_length} characters, not {len(text)}")
    elif NOT_TEXT.search(text):
        yield from (Fault(path, f"must not hold {what}") for what, found in FORBIDDEN.items() if found.search(text))
    elif info.pattern is not None and not re.search(info.pattern, text):
        yield Fault(path, f"must match {info.pattern}")


def _find_in_dict(value: bytes, info: inspect.DictType, path: str) -> Iterator[Fault]:
    if _has_more_members(value, info):
        yield Fault(path, f"must have at most {info.max_length} members")
        return
    members = read_object(value)
    if info.min_length and not members:
        yield Fault(path, "must not be empty")
    elif info.max_length is not None and len(members) > info.max_length:
        yield Fault(path, f"must have at most {info.max_length} members")
        return
    for name, member in members.items():
        yield from _find(msgspec.json.encode(name), info.key_type, f"{path}.{shown(name)}")
        yield from _find(bytes(member), info.value_type, f"{path}.{shown(name)}")


def _has_more_members(value: bytes, info: inspect.DictType) -> bool:
    """
    Tell whether a long object without objects in it has more members than *info* allows.

    Such an object has one colon outside its strings for each member. Making a dict would take 16 times the memory.
    """
    if info.max_length is None or len(value) <= LONG_BYTES or not _is_flat(info.value_type):
        return False
    return outside_strings(value, _NO_COLONS, info.max_length).count(b":") > info.max_length


def _is_flat(info: inspect.Type) -> bool:
    """Tell whether values of the type *info* hold no objects."""
    match info:
        case inspect.ListType():
            return _is_flat(info.item_type)
        case inspect.UnionType():
            return all(map(_is_flat, info.types))
        case _:
            return isinstance(info, inspect.StrType | inspect.FloatType | inspect.IntType | inspect.NoneType)


def _find_in_time(value: bytes, _info: inspect.DateTimeType, path: str) -> Iterator[Fault]:
    try:
        _time(value)
    except msgspec.DecodeError:
        yield Fault(path, NOT_A_TIME)


_RULES: dict[type[inspect.Type], Callable[[bytes, Any, str], Iterator[Fault]]] = {
    inspect.StructType: _find_in_struct,
    inspect.ListType: _find_in_list,
    inspect.VarTupleType: _find_in_list,
    inspect.DictType: _find_in_dict,
    inspect.Metadata: lambda value, info, path: _find(value, info.type, path),  # a type with a description
    inspect.StrType: _find_in_text,
    inspect.IntType: _find_in_integer,
    inspect.FloatType: lambda value, info, path: _find_outside(float(value), info, path),
    inspect.BoolType: _find_nothing,
    inspect.UnionType: _find_in_union,
    inspect.LiteralType: _find_in_literal,
    inspect.DateTimeType: _find_in_time,
    inspect.RawType: _find_nothing,
}


def _find_outside(value: float, info: inspect.IntType | inspect.FloatType, path: str) -> Iterator[Fault]:
    if isinstance(value, float) and not math.isfinite(value):
        yield Fault(path, "is not a finite number")
    elif info.ge is not None and value < info.ge:
        yield Fault(path, f"must be at least {info.ge}")
    elif info.gt is not None and value <= info.gt:
        yield Fault(path, f"must be above {info.gt}")
    elif info.le is not None and value > info.le:
        yield Fault(path, f"must be at most {info.le}")
