"""
Decode JSON into typed values, and report all faults of an invalid body together.

The fast path is msgspec, which decodes and validates in one pass and stops at the first fault. If it refuses a body, a
second pass walks the body with the same type information and lists the faults. The annotations of the structs thus state
the rules once for both passes.

Refusing a body costs little more than receiving it, for four reasons. The second pass reads pieces of raw JSON, and
makes Python values only of short strings and of numbers. It stops at an array or a text that is too long. A long body
goes through the second pass first, because the fast path reads an over-long array to its end. A long body of more than
8,192 arrays and objects is refused unread, because skipping an array takes as long as skipping 20 bytes of text.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct, inspect

from chassis.wire.problems import Fault, InvalidRequestError, NotJsonError, ServingError

T = TypeVar("T")

_CONTROLS = "\x00-\x1f\x7f-\x9f"
_SURROGATES = "\ud800-\udfff"
_NONCHARACTERS = "\ufdd0-\ufdef" + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_FORBIDDEN = {
    "control characters": re.compile(f"[{_CONTROLS}]"),
    "noncharacters": re.compile(f"[{_NONCHARACTERS}]"),
}
# Characters that no text may contain. An id becomes an attribute of an event, where CloudEvents forbids these characters
# (CloudEvents 1.0.2, "Type System", String).
NOT_TEXT = re.compile(f"[{_CONTROLS}{_SURROGATES}{_NONCHARACTERS}]")
# A body contains these characters as escapes or as these bytes of UTF-8. A few allowed characters end in the same bytes;
# the second pass accepts them.
_ESCAPE, _DELETE = b"\\", b"\x7f"
_SUSPECT = re.compile(rb"\xc2[\x80-\x9f]|\xef\xb7[\x90-\xaf]|\xbf[\xbe\xbf]")
_INTEGER = re.compile(rb"-?\d{1,40}")
LONG_BYTES = 16 * 1024
_MOST_NAMES = 1000
MAX_NESTED = 8192
CROWDED = f"must have at most {MAX_NESTED} arrays and objects"
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[{")
_NO_COLONS = bytes(byte for byte in range(256) if byte not in b':"')
_NO_MARKS = bytes(byte for byte in range(256) if byte not in b'[{"')
MAX_REFUSED_BYTES = 4 * 1024
NOT_READ = "was not read: the parts of the batch before it have too many faults"

_skip = msgspec.json.Decoder(Raw).decode
_text = msgspec.json.Decoder(str).decode
_time = msgspec.json.Decoder(Annotated[datetime, msgspec.Meta(tz=True)]).decode
_items = msgspec.json.Decoder(list[Raw]).decode
_object = msgspec.json.Decoder(dict[str, Raw]).decode
_NOT_DECODED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Decoder(Generic[T]):
    """
    Decodes request bodies into *type_*.

    Cost: about 0.3 us for a small body; a refused body costs a second, slower pass.
    """

    def __init__(self, type_: type[T]) -> None:
        self._fast = msgspec.json.Decoder(type_)
        self._info = inspect.type_info(type_)

    def decode(self, body: bytes) -> T:
        """
        Return *body* as the decoder's type.

        Raises:
            NotJsonError: *body* is not UTF-8, or not a single JSON text.
            InvalidRequestError: the JSON has faults; lists up to 100 of them.
        """
        if is_crowded(body):
            raise InvalidRequestError(faults=[Fault("$", CROWDED)])
        return self._decode(body)

    def decode_each(self, bodies: Sequence[Raw]) -> list[T | ServingError]:
        """
        Return each of *bodies*, the members of a batch that a decoder read, as the decoder's type or as an error.

        After 4 KiB of refused members, the other members are refused unread, because listing faults takes longer than
        decoding.
        """
        results: list[T | ServingError] = []
        refused_bytes = 0
        for body in map(bytes, bodies):
            try:
                if refused_bytes > MAX_REFUSED_BYTES:
                    raise InvalidRequestError(NOT_READ)
                results.append(self._decode(body))
            except ServingError as error:
                results.append(error)
                refused_bytes += len(body)
        return results

    def _decode(self, body: bytes) -> T:
        is_long = len(body) > LONG_BYTES
        if is_long:
            self._check(body)
        try:
            value = self._fast.decode(body)
        except _NOT_DECODED as error:
            self._check(body)
            raise InvalidRequestError(faults=[Fault("$", "is not what this door takes")]) from error
        if not is_long and (_ESCAPE in body or _DELETE in body or (not body.isascii() and _SUSPECT.search(body))):
            self._check(body)
        return value

    def _check(self, body: bytes) -> None:
        refusal = InvalidRequestError(faults=find_faults(body, self._info))
        if refusal.faults:
            raise refusal


def split_members(body: bytes, name: str, *, most: int) -> list[Raw] | None:
    """
    Return the items of the array that is the only member, *name*, of the long object *body*.

    A short body and a body with other content give None. A decoder then decodes that body or refuses it.

    Raises:
        NotJsonError: *body* is not a JSON text in UTF-8.
        InvalidRequestError: *body* has too many arrays and objects, or the array more than *most* items.

    Cost: reads the body once. A decoder reads it up to four times.
    """
    if len(body) <= LONG_BYTES:
        return None
    _check_encoding(body)
    try:
        (array,) = msgspec.structs.astuple(_only_array(name, most + 1).decode(body))
    except msgspec.ValidationError:
        return None
    except _NOT_DECODED as error:
        raise explain_syntax(body, error) from error
    if is_crowded(body):
        raise InvalidRequestError(faults=[Fault("$", CROWDED)])
    items = [Raw(bytes(item)) for item in msgspec.structs.astuple(array) if item]
    if len(items) > most:
        raise InvalidRequestError(faults=[_too_many(f"$.{name}", most)])
    return items or None


@cache
def _only_array(name: str, count: int) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(msgspec.defstruct("OnlyArray", [(name, _first(count))], forbid_unknown_fields=True))


def find_faults(body: bytes, info: inspect.Type) -> Iterator[Fault]:
    """
    Yield the faults of *body* as a value of the type *info*.

    The types are those of the wire contracts: structs, lists with a limit, dicts, strings, times with a time zone,
    numbers, booleans, null, unions of one type with null, unions of strings with numbers, raw JSON.

    Raises:
        NotJsonError: *body* is not a JSON text in UTF-8.
        TypeError: *info* is of another kind.
    """
    _check_encoding(body)
    text = body.strip(b" \t\r\n")
    try:
        if _kind(text) != _OBJECT:
            _skip(text)
        yield from _find(text, info, "$")
    except _NOT_DECODED as error:
        raise explain_syntax(body, error) from error


def explain_syntax(body: bytes, error: Exception) -> ServingError:
    """Return the error for *body*, which the JSON decoder refused with *error*."""
    _check_encoding(body)
    if isinstance(error, RecursionError):
        return NotJsonError("nested too deeply")
    # msgspec takes half a surrogate pair for a syntax error. Other escapes in place of the surrogates show whether the
    # body has no other error.
    if _ESCAPE in body and _is_json(body.replace(rb"\ud", rb"\u0").replace(rb"\uD", rb"\u0")):
        return InvalidRequestError(faults=[Fault("$", "must not hold unpaired surrogates")])
    return NotJsonError(str(error))


def _check_encoding(body: bytes) -> None:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise NotJsonError(f"byte {error.start} is not UTF-8") from error


class Uncrowded(bytes):
    """A part of a body that is not crowded. Its brackets need not be counted again."""


def is_crowded(body: bytes) -> bool:
    """
    Tell whether *body* is long and has more than 8,192 arrays and objects.

    Cost: 1 ms per MB, and up to 7 ms per MB if the body and its strings have that many brackets.
    """
    if isinstance(body, Uncrowded) or len(body) <= LONG_BYTES:
        return False
    if len(body.translate(None, _NO_BRACKETS)) <= MAX_NESTED:
        return False
    return len(_outside_strings(body, _NO_MARKS, MAX_NESTED).translate(None, _NO_BRACKETS)) > MAX_NESTED


def _outside_strings(body: bytes, others: bytes, most: int) -> bytes:
    """Return the marks of *body* outside its strings, without the *others*; a few more than *most* if there are so many."""
    # Replacing text by as many characters takes half the time of removing the text.
    text = body.replace(rb"\\", b"__").replace(rb"\"", b"__") if _ESCAPE in body else body
    # Two quotes with no mark between them do not change which marks are within strings. Without such pairs, there is a
    # mark between any two quotes.
    marks = text.translate(None, others).replace(b'""', b"  ")
    return b"".join(marks.split(b'"', 2 * most + 2)[::2])


def _is_json(body: bytes) -> bool:
    try:
        _skip(body)
    except _NOT_DECODED:
        return False
    return True


def first_items(array: bytes, most: int) -> list[bytes]:
    """
    Return the first *most* items of a JSON array, and one more if it has more. The rest is checked and not kept.

    Raises:
        msgspec.DecodeError: *array* is not a JSON array.
    """
    if array.count(b",") <= most:
        return [bytes(item) for item in _items(array)]
    return [bytes(item) for item in msgspec.structs.astuple(_first_items(most + 1).decode(array)) if item]


@cache
def _first_items(count: int) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(_first(count))


def _first(count: int) -> type[Struct]:
    # msgspec makes a list of all items before it checks the length. Reading an array as a struct keeps the first items
    # as its fields and skips the rest, which is ten times faster.
    return msgspec.defstruct("First", [(f"item_{number}", Raw, Raw()) for number in range(count)], array_like=True)


def _has_more(array: bytes, most: int) -> bool:
    """
    Tell whether a long JSON array has more than *most* items in its first 16 KiB.

    Only the text before the last comma is read, with a closing bracket added. If that comma is inside an item, the text
    is no JSON.
    """
    if len(array) <= LONG_BYTES:
        return False
    end = max(0, array.rfind(b",", 0, LONG_BYTES))
    try:
        return len(first_items(array[:end] + b"]", most)) > most
    except _NOT_DECODED:
        return False


def _find(value: bytes, info: inspect.Type, path: str) -> Iterator[Fault]:
    rule = _RULES.get(type(info))
    if rule is None:
        raise TypeError(f"no rule for {info!r}")
    return rule(value, info, path)


def _find_nothing(_value: bytes, _info: inspect.Type, _path: str) -> Iterator[Fault]:
    return iter(())


def _find_in_integer(value: bytes, info: inspect.IntType, path: str) -> Iterator[Fault]:
    # Python refuses integers of thousands of digits, and needs time in the square of the number of digits for others.
    if _INTEGER.fullmatch(value):
        yield from _find_outside(int(value), info, path)
    else:
        yield Fault(path, f"must be an integer, not {_kind(value)}")


def _find_in_number(value: bytes, info: inspect.FloatType, path: str) -> Iterator[Fault]:
    if _kind(value) == _NUMBER:
        yield from _find_outside(float(value), info, path)
    else:
        yield Fault(path, f"must be a number, not {_kind(value)}")


def _find_in_boolean(value: bytes, _info: inspect.BoolType, path: str) -> Iterator[Fault]:
    if _kind(value) != _BOOLEAN:
        yield Fault(path, f"must be true or false, not {_kind(value)}")


def _find_in_literal(value: bytes, info: inspect.LiteralType, path: str) -> Iterator[Fault]:
    if _kind(value) != _STRING or _text(value) not in info.values:
        yield Fault(path, f"must be one of {', '.join(map(repr, info.values))}")


def _find_in_union(value: bytes, info: inspect.UnionType, path: str) -> Iterator[Fault]:
    if value == b"null" and info.includes_none:
        return iter(())
    inner = [member for member in info.types if not isinstance(member, inspect.NoneType)]
    if len(inner) == 1:
        return _find(value, inner[0], path)
    kinds = {_KIND_OF[type(member)]: member for member in inner}
    if (suited := kinds.get(_kind(value))) is not None:
        return _find(value, suited, path)
    return iter([Fault(path, f"must be {' or '.join(kinds)}, not {_kind(value)}")])


def _find_in_struct(value: bytes, info: inspect.StructType, path: str) -> Iterator[Fault]:
    if _kind(value) != _OBJECT:
        yield Fault(path, f"must be an object, not {_kind(value)}")
        return
    members, unknown = _members(value, info)
    for field in info.fields:
        if field.encode_name in members:
            yield from _find(bytes(members[field.encode_name]), field.type, f"{path}.{field.encode_name}")
        elif field.required:
            yield Fault(f"{path}.{field.encode_name}", "is missing")
    if info.forbid_unknown_fields:
        for name in unknown:
            yield Fault(f"{path}.{shown(name)}", "is not a known field")


def _members(value: bytes, info: inspect.StructType) -> tuple[Mapping[str, Raw], Sequence[str]]:
    """Return the known fields of an object, and the names of unknown ones; of very many fields, only the first unknown."""
    if value.count(b":") <= _MOST_NAMES:
        members = _object(value)
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


def _find_in_list(value: bytes, info: inspect.ListType, path: str) -> Iterator[Fault]:
    if info.max_length is None:
        raise TypeError(f"no limit in {info!r}")
    if _kind(value) != _ARRAY:
        yield Fault(path, f"must be an array, not {_kind(value)}")
        return
    if _has_more(value, info.max_length) or len(items := first_items(value, info.max_length)) > info.max_length:
        yield _too_many(path, info.max_length)
        return
    if info.min_length and not items:
        yield Fault(path, "must not be empty")
    for index, item in enumerate(items):
        yield from _find(item, info.item_type, f"{path}[{index}]")


def _too_many(path: str, most: int) -> Fault:
    return Fault(path, f"must have at most {most} items")


def _find_in_text(value: bytes, info: inspect.StrType, path: str) -> Iterator[Fault]:
    if _kind(value) != _STRING:
        yield Fault(path, f"must be a string, not {_kind(value)}")
        return
    text = _text(value)
    if info.min_length and not text:
        yield Fault(path, "must not be empty")
    elif info.max_length is not None and len(text) > info.max_length:
        yield Fault(path, f"must have at most {info.max_length} characters, not {len(text)}")
    elif NOT_TEXT.search(text):
        yield from (Fault(path, f"must not hold {what}") for what, found in _FORBIDDEN.items() if found.search(text))


def _find_in_dict(value: bytes, info: inspect.DictType, path: str) -> Iterator[Fault]:
    if _kind(value) != _OBJECT:
        yield Fault(path, f"must be an object, not {_kind(value)}")
        return
    if _has_more_members(value, info):
        yield Fault(path, f"must have at most {info.max_length} members")
        return
    members = _object(value)
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
    return _outside_strings(value, _NO_COLONS, info.max_length).count(b":") > info.max_length


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
        yield Fault(path, "must be a time with a time zone, such as 2026-01-31T12:00:00Z")


_RULES: dict[type[inspect.Type], Callable[[bytes, Any, str], Iterator[Fault]]] = {
    inspect.StructType: _find_in_struct,
    inspect.ListType: _find_in_list,
    inspect.DictType: _find_in_dict,
    inspect.Metadata: lambda value, info, path: _find(value, info.type, path),  # a type with a description
    inspect.StrType: _find_in_text,
    inspect.IntType: _find_in_integer,
    inspect.FloatType: _find_in_number,
    inspect.BoolType: _find_in_boolean,
    inspect.UnionType: _find_in_union,
    inspect.LiteralType: _find_in_literal,
    inspect.DateTimeType: _find_in_time,
    inspect.RawType: _find_nothing,
}


def _find_outside(value: float, info: inspect.IntType | inspect.FloatType, path: str) -> Iterator[Fault]:
    if isinstance(value, float) and not math.isfinite(value):
        yield Fault(path, "is too large a number")
    elif info.ge is not None and value < info.ge:
        yield Fault(path, f"must be at least {info.ge}")
    elif info.le is not None and value > info.le:
        yield Fault(path, f"must be at most {info.le}")


def shown(name: str) -> str:
    """Return a caller's *name* for a message: cut to 64 characters, in printable ASCII."""
    return name[:64].encode("ascii", "backslashreplace").decode()


_STRING, _ARRAY, _OBJECT, _BOOLEAN, _NUMBER = "a string", "an array", "an object", "a boolean", "a number"
_KIND_OF: dict[type[inspect.Type], str] = {inspect.StrType: _STRING, inspect.FloatType: _NUMBER}
_KINDS = {b'"': _STRING, b"[": _ARRAY, b"{": _OBJECT, b"t": _BOOLEAN, b"f": _BOOLEAN, b"n": "null"}


def _kind(value: bytes) -> str:
    """Return the kind of a JSON value, by its first byte."""
    return _KINDS.get(value[:1], _NUMBER)
