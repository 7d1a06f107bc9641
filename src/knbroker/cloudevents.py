"""
CloudEvents 1.0 over HTTP, as a broker needs them: attributes are read and checked, data are carried.

Source: CloudEvents 1.0.2, "Context Attributes" and "Type System"; HTTP Protocol Binding 1.0.2; JSON Event Format 1.0.2.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec
from msgspec import Raw, Struct

from kubeyaml.filters import Value, text

STRUCTURED: Final = "application/cloudevents+json"
RawHeaders = Iterable[tuple[bytes, bytes]]

_REQUIRED: Final = ("specversion", "id", "source", "type")
# What an attribute has to look like: RFC 3986 for URIs, RFC 3339 for times, RFC 2045 and 2046 for media types.
_URI: Final = r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+"
_RULES: Final = {
    **dict.fromkeys(("id", "type", "subject"), (re.compile(r".+"), "must not be empty")),
    "specversion": (re.compile(r"1\.0"), "must be 1.0"),
    "source": (re.compile(_URI), "must be a URI reference"),
    "dataschema": (re.compile(rf"[A-Za-z][A-Za-z0-9+.-]*:{_URI}"), "must be an absolute URI"),
    # In binary mode it is a header as it is; no other attribute is that.
    "datacontenttype": (
        re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(\s*;[ -~]*)?", re.ASCII),
        "must be a media type in ASCII (RFC 2046)",
    ),
    "time": (
        re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)"),
        "must be a timestamp (RFC 3339)",
    ),
}
_NAME: Final = re.compile(r"[a-z0-9]+")
# Controls and what is no character, which the type system excludes from strings; the last two of each plane are none.
_PLANE_ENDS: Final = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_NOT_TEXT: Final = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_PLANE_ENDS}]")
_HEADER_SAFE: Final = "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


class RefusedEventError(Exception):
    """An event that is not taken; *status* is for its sender."""

    def __init__(self, text: str, *, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class MalformedEventError(RefusedEventError):
    """It says that it is an event and breaks rules of CloudEvents; one line names all of them."""


class Event(Struct, frozen=True):
    """
    One event.

    Attributes:
        attributes: All context attributes but the media type's place: it is `datacontenttype` in either mode.
        data: The payload's bytes; None without one.
    """

    attributes: Mapping[str, Value]
    data: bytes | None = None

    def extended(self, **attributes: Value) -> "Event":
        """Return the event with further attributes, or other values of them."""
        return Event({**self.attributes, **attributes}, self.data)


def read(headers: RawHeaders, body: bytes) -> Event | None:
    """
    Return the event of a request or an answer, in binary or structured mode; None where it says it is none.

    Raises:
        MalformedEventError: It is not JSON, attributes break their rules, or there are several events (batch mode).
    """
    fields = [(name.decode("latin-1"), value) for name, value in headers]
    media_type = next((value.decode("latin-1") for name, value in fields if name == "content-type"), "")
    kind = media_type.partition(";")[0].strip().lower()
    if kind == STRUCTURED:
        event = _read_structured(body)
    elif kind.startswith("application/cloudevents"):
        raise MalformedEventError(f"{kind} is not taken, only {STRUCTURED} and binary mode")
    elif any(name == "ce-specversion" for name, _ in fields):
        named = {name[3:]: _unquoted(value) for name, value in fields if name.startswith("ce-")}
        event = Event(named | ({"datacontenttype": media_type} if media_type else {}), body or None)
    else:
        return None
    if faults := list(_faults(event.attributes)):
        raise MalformedEventError("; ".join(faults))
    return event


def write(event: Event, *, structured: bool) -> tuple[list[tuple[str, str]], bytes]:
    """Return headers and body that carry *event* in structured or in binary mode."""
    attributes = dict(event.attributes)
    if structured:
        return [("content-type", f"{STRUCTURED}; charset=UTF-8")], _document(event)
    media_type = attributes.pop("datacontenttype", None)
    headers = [(f"ce-{name}", quote(text(value), safe=_HEADER_SAFE)) for name, value in attributes.items()]
    return headers + ([("content-type", str(media_type))] if media_type else []), event.data or b""


def _unquoted(value: bytes) -> str:
    try:
        return unquote(value.decode().strip('"'), errors="strict")
    except UnicodeDecodeError:
        return "\x00"  # what no attribute may hold


def _read_structured(body: bytes) -> Event:
    try:
        fields = msgspec.json.decode(body, type=dict[str, Raw])
        encoded, data = fields.pop("data_base64", None), fields.pop("data", None)
        found = {name: msgspec.json.decode(value) for name, value in fields.items()}
        attributes = {name: value for name, value in found.items() if value is not None}
        if encoded is not None:
            return Event(attributes, msgspec.json.decode(encoded, type=bytes))
        content = bytes(data or b"null")
        if content == b"null":
            return Event(attributes)
        is_text = content.startswith(b'"') and not _is_json(attributes)
        return Event(attributes, msgspec.json.decode(content, type=str).encode() if is_text else content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedEventError("the body is no JSON object with an event in it") from error


def _document(event: Event) -> bytes:
    document: dict[str, Any] = dict(event.attributes)
    try:
        if event.data is not None:
            msgspec.json.decode(event.data)
            # A reader takes null for no data.
            plain = _is_json(document) and event.data.strip() != b"null"
            document |= {"data": Raw(event.data)} if plain else {"data_base64": event.data}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        document["data_base64"] = event.data
    return msgspec.json.encode(document)


def _is_json(attributes: Mapping[str, Any]) -> bool:
    media_type = str(attributes.get("datacontenttype", "application/json")).partition(";")[0].strip().lower()
    return media_type.endswith(("/json", "+json"))


def _faults(attributes: Mapping[str, Any]) -> Iterator[str]:
    for name in _REQUIRED:
        if name not in attributes:
            yield f"{name} is missing"
    for name, value in attributes.items():
        pattern, wanted = _RULES.get(name, (None, ""))
        if not _NAME.fullmatch(name):
            yield f"{name!r} is no attribute's name: lower-case letters and digits"
        elif not isinstance(value, Value):
            yield f"{name} must be a string, an integer or a boolean"
        elif isinstance(value, str) and _NOT_TEXT.search(value):
            yield f"{name} must be UTF-8 without control characters or noncharacters"
        elif pattern and not (isinstance(value, str) and pattern.fullmatch(value)):
            yield f"{name} {wanted}"
        elif isinstance(value, int) and not -(2**31) <= value < 2**31:
            yield f"{name} must be an integer of 32 bits"
