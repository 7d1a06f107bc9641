"""
Decode JSON into typed values, and report all faults of an invalid body together.

The fast path is msgspec, which decodes and validates in one pass and stops at the first fault. If it refuses a body, a
second pass walks the body with the same type information and lists the faults. The annotations of the structs thus state
the rules once for both passes.

Refusing a body costs little more than receiving it, for four reasons. The second pass reads pieces of raw JSON, and
makes Python values only of short strings and of numbers. It stops at an array or a text that is too long. A long body
goes through the second pass first, unless the decoder takes long bodies, because the fast path reads an over-long array
to its end. A long body of more than 8,192 arrays and objects is refused unread, because skipping an array takes as long
as skipping 20 bytes of text.
"""

from collections.abc import Callable, Sequence
from functools import cache, cached_property
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
from chassis.wire.repair import independent, mend
from chassis.wire.text import is_suspect

T = TypeVar("T")
R = TypeVar("R")

MAX_REFUSED_BYTES = 4 * 1024
# The longest valid request to recommend with ids of 36 characters is shorter. Mending reads a body once more.
MAX_MENDED_BYTES = 128 * 1024
NOT_READ = "was not read: the parts of the batch before it have too many faults"


class Decoder(Generic[T]):
    """
    Decodes request bodies into *type_*.

    Cost: about 0.3 us for a small body; a refused body costs a second, slower pass.

    Args:
        type_: The type.
        may_be_long: Decode long bodies without a pass before. That takes a tenth of the time, and up to 12 ms per MB if
            the body is refused.
    """

    def __init__(self, type_: type[T], *, may_be_long: bool = False) -> None:
        self._type = type_
        self._may_be_long = may_be_long
        self._fast = msgspec.json.Decoder(type_)
        self._info = inspect.type_info(type_)

    def decode(self, body: bytes) -> T:
        """
        Return *body* as the decoder's type.

        Raises:
            NotJsonError: *body* is not UTF-8, or not a single JSON text.
            InvalidRequestError: the JSON has faults; lists up to 100 of them.
        """
        return self.read(body, _unchanged)

    def read(self, body: bytes, check: Callable[[T], R]) -> R:
        """
        Return what *check* returns for the decoded *body*.

        If *body* has faults, *check* gets values in which stand-ins replace the faulty parts, and the error also lists the
        faults of the other parts.

        Args:
            body: The body.
            check: Raises `InvalidRequestError` for values that the type allows and the function does not take. It has no
                side effects.

        Raises:
            NotJsonError, InvalidRequestError: as `decode`.
        """
        if is_crowded(body):
            raise InvalidRequestError(faults=[Fault("$", CROWDED)])
        return self._read(body, check)

    def read_each(self, bodies: Sequence[Raw], check: Callable[[T], R]) -> list[R | ServingError]:
        """
        Return what `read` returns or raises for each of *bodies*, the members of a batch that a decoder read.

        After 4 KiB of refused members, the other members are refused unread, because listing faults takes longer than
        decoding.
        """
        results: list[R | ServingError] = []
        values = self._decode_together(bodies)
        refused_bytes = 0
        for place, body in enumerate(map(bytes, bodies)):
            try:
                if refused_bytes > MAX_REFUSED_BYTES:
                    raise InvalidRequestError(NOT_READ)
                results.append(check(values[place]) if values else self._read(body, check))
            except ServingError as error:
                results.append(error)
                refused_bytes += len(body)
        return results

    def decode_each(self, bodies: Sequence[Raw]) -> list[T | ServingError]:
        """Return each of *bodies* as the decoder's type or as an error; as `read_each`."""
        return self.read_each(bodies, _unchanged)

    def mended(self, body: bytes, refusal: ServingError) -> list[T]:
        """
        Return *body*, which this decoder refused with *refusal*, with stand-ins for the faulty parts.

        The values differ in the stand-ins for words of fixed lists. The list is empty if *body* is longer than 128 KiB or
        cannot be mended.
        """
        if not refusal.faults or len(body) > MAX_MENDED_BYTES:
            return []
        try:
            return [self._fast.decode(each) for each in mend(body, self._info, refusal.faults)]
        except NOT_DECODED:
            return []

    @cached_property
    def _fast_list(self) -> msgspec.json.Decoder[list[T]]:
        return msgspec.json.Decoder(list[self._type])  # type: ignore[name-defined]  # known at run time

    def _decode_together(self, bodies: Sequence[Raw]) -> list[T] | None:
        """
        Return *bodies*, if all are short and plainly valid; None otherwise.

        Cost: half of that of decoding them one by one.
        """
        if any(len(bytes(body)) > LONG_BYTES for body in bodies):
            return None
        array = b"[%b]" % b",".join(bodies)
        if is_suspect(array):
            return None
        try:
            return self._fast_list.decode(array)
        except NOT_DECODED:
            return None

    def _read(self, body: bytes, check: Callable[[T], R]) -> R:
        try:
            value = self._decode(body)
        except InvalidRequestError as refusal:
            found = [_faults_of(check, each) for each in self.mended(body, refusal)] if check is not _unchanged else []
            common = [fault for fault in found[0] if all(fault in other for other in found)] if found else []
            raise with_more(refusal, common) from None
        return check(value)

    def _decode(self, body: bytes) -> T:
        is_checked = len(body) > LONG_BYTES and not self._may_be_long
        if is_checked:
            self._check(body)
        try:
            value = self._fast.decode(body)
        except NOT_DECODED as error:
            self._check(body)
            raise InvalidRequestError(faults=[Fault("$", "is not what this door takes")]) from error
        if not is_checked and is_suspect(body):
            self._check(body)
        return value

    def _check(self, body: bytes) -> None:
        refusal = InvalidRequestError(faults=find_faults(body, self._info))
        if refusal.faults:
            raise refusal


def with_more(refusal: InvalidRequestError, found: Sequence[Fault]) -> InvalidRequestError:
    """Return *refusal* with those faults also that were *found* in its mended body and are real."""
    more = independent(found, refusal.faults)
    return InvalidRequestError(refusal.detail, faults=[*refusal.faults, *more]) if more else refusal


def _unchanged(value: T) -> T:
    return value


def _faults_of(check: Callable[[T], object], value: T) -> Sequence[Fault]:
    try:
        check(value)
    except InvalidRequestError as refusal:
        return refusal.faults
    return ()


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
