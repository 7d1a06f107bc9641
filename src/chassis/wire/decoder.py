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

from collections.abc import Sequence
from functools import cache
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw, inspect

from chassis.wire.faults import find_faults, too_many
from chassis.wire.json_text import (
    CROWDED,
    LONG_BYTES,
    NOT_DECODED,
    array_start,
    check_encoding,
    explain_syntax,
    is_crowded,
)
from chassis.wire.problems import Fault, InvalidRequestError, ServingError
from chassis.wire.text import is_suspect

T = TypeVar("T")

MAX_REFUSED_BYTES = 4 * 1024
NOT_READ = "was not read: the parts of the batch before it have too many faults"


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
        except NOT_DECODED as error:
            self._check(body)
            raise InvalidRequestError(faults=[Fault("$", "is not what this door takes")]) from error
        if not is_long and is_suspect(body):
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
    check_encoding(body)
    try:
        (array,) = msgspec.structs.astuple(_only_array(name, most + 1).decode(body))
    except msgspec.ValidationError:
        return None
    except NOT_DECODED as error:
        raise explain_syntax(body, error) from error
    if is_crowded(body):
        raise InvalidRequestError(faults=[Fault("$", CROWDED)])
    items = [Raw(bytes(item)) for item in msgspec.structs.astuple(array) if item]
    if len(items) > most:
        raise InvalidRequestError(faults=[too_many(f"$.{name}", most)])
    return items or None


@cache
def _only_array(name: str, count: int) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(
        msgspec.defstruct("OnlyArray", [(name, array_start(count))], forbid_unknown_fields=True)
    )
