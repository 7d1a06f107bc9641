"""
Put valid values in the places of a body's faults, so that its other parts can be checked too.

A function checks a decoded body by rules that a type cannot state, such as "the attribute is declared". A body with
faults cannot be decoded. A mended body can: each faulty part is replaced by a stand-in, a small value of its type. A
fault that the function finds in a mended body is real unless it concerns a stand-in.

A stand-in for a word of a fixed list may decide whether another part is right: a range suits a number and does not suit
a category. A body is therefore mended once for each word, and only the faults that all mended bodies have are real.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Raw, inspect

from chassis.wire.faults import split_fields
from chassis.wire.json_text import read_array, read_object
from chassis.wire.problems import Fault
from chassis.wire.text import shown

_ENDS = re.compile(r"[.\[]")


def mend(body: bytes, info: inspect.Type, faults: Sequence[Fault]) -> Iterator[bytes]:
    """
    Yield *body*, a JSON text of the type *info* with *faults*, with a stand-in for each faulty part.

    Each text has other words in the places of faulty words. At least one text is yielded.
    """
    first = _Mending({fault.path for fault in faults})
    yield msgspec.json.encode(first.mend(body, info, "$"))
    for number in range(1, first.words):
        yield msgspec.json.encode(_Mending(first.faulty, number).mend(body, info, "$"))


def independent(found: Sequence[Fault], faults: Sequence[Fault]) -> list[Fault]:
    """Return those of *found* whose places are neither around nor within the place of one of *faults*."""
    return [one for one in found if not any(_touch(one.path, other.path) for other in faults)]


def _touch(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return long.startswith(short) and long[len(short) : len(short) + 1] in ("", ".", "[")


class _Mending:
    """
    Replaces the parts of a body at the paths *faulty*; chooses the word *number* of a fixed list.

    Attributes:
        words: The length of the longest fixed list from which a word was chosen.
    """

    def __init__(self, faulty: Collection[str], number: int = 0) -> None:
        self.faulty, self._number, self.words = faulty, number, 1
        self._around = {path[: end.start()] for path in faulty for end in _ENDS.finditer(path)}

    def mend(self, value: bytes, info: inspect.Type, path: str) -> Any:
        """Return *value*, the part of the body at *path*, mended, as an object that encodes to JSON."""
        mended: Any = Raw(value)
        if path in self.faulty:
            mended = self._stand_in(info)
        elif path in self._around:
            match info:
                case inspect.StructType():
                    mended = self._mend_struct(value, info, path)
                case inspect.DictType():
                    places = {name: (f"{path}.{shown(name)}", member) for name, member in read_object(value).items()}
                    faultless = {name: at for name, at in places.items() if at[0] not in self.faulty}
                    mended = {
                        name: self.mend(bytes(member), info.value_type, inner)
                        for name, (inner, member) in faultless.items()
                    }
                case inspect.ListType() | inspect.VarTupleType():
                    items = enumerate(map(bytes, read_array(value)))
                    mended = [self.mend(item, info.item_type, f"{path}[{place}]") for place, item in items]
                case inspect.UnionType():
                    mended = self.mend(value, _first(info), path)
                case inspect.Metadata():
                    mended = self.mend(value, info.type, path)
        return mended

    def _mend_struct(self, value: bytes, info: inspect.StructType, path: str) -> Any:
        members, _ = split_fields(value, info)
        return {
            name: self.mend(bytes(members.get(name, b"")), field.type, inner)
            for field in info.fields
            if (inner := f"{path}.{(name := field.encode_name)}") in self.faulty or name in members
        }

    def _stand_in(self, info: inspect.Type) -> Any:
        small: Any = {} if isinstance(info, inspect.DictType) else False
        match info:
            case inspect.StructType():
                small = {field.encode_name: self._stand_in(field.type) for field in info.fields if field.required}
            case inspect.ListType() | inspect.VarTupleType():
                small = [self._stand_in(info.item_type)] * max(1, info.min_length or 0)
            case inspect.UnionType():
                small = self._stand_in(_first(info))
            case inspect.Metadata():
                small = self._stand_in(info.type)
            case inspect.LiteralType():
                self.words = max(self.words, len(info.values))
                small = info.values[self._number % len(info.values)]
            case inspect.StrType():
                small = "a" * (info.min_length or 1)
            case inspect.IntType() | inspect.FloatType():
                small = next((limit for limit in (info.le, info.ge) if limit is not None), 1)
            case inspect.DateTimeType():
                small = "1970-01-01T00:00:00Z"
        return small


def _first(info: inspect.UnionType) -> inspect.Type:
    return next(each for each in info.types if not isinstance(each, inspect.NoneType))
