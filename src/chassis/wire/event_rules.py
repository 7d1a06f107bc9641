"""
The rules for the attributes of an event, shared by brokers and functions.

Source: CloudEvents 1.0.2, "Context Attributes" and "Type System". This project sets the limits, because an
event that a broker accepts in a document must fit into the headers of its delivery.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from chassis.wire.problems import Fault
from chassis.wire.text import NOT_TEXT, shown

SPECVERSION = "1.0"
MAX_ID_BYTES = 1024
MAX_ATTRIBUTES = 64
MAX_HEADER_BYTES = 32 * 1024

AttributeValue = str | int | bool

NOT_A_TIME = "must be a time with a time zone, such as 2026-01-31T12:00:00Z"
"""Fault of a text that is not RFC 3339."""

# RFC 3986: the characters of a URI reference; section 3: a scheme makes it absolute.
_URI_REFERENCE = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:.+")
# RFC 3339, section 5.6.
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
# RFC 2045, section 5.1; ASCII only, because it becomes a header without encoding.
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(?:\s*;[ -~]*)?", re.ASCII)
_NAME = re.compile(r"[a-z0-9]+")
_NOT_TEXT = "must not hold control characters, unpaired surrogates or noncharacters (CloudEvents: String)"
# HTTP binding 3.1.3.2: in a header, other characters than these are percent-encoded.
_HEADER_SAFE = "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


def header_text(value: AttributeValue) -> str:
    """Return the text of an attribute in a header."""
    return quote(str(value).lower() if isinstance(value, bool) else str(value), safe=_HEADER_SAFE)


def find_attribute_faults(attributes: Mapping[str, Any], path: str) -> Iterator[Fault]:
    """
    Yield the faults of an event's attributes.

    Args:
        attributes: The values by name. A value of another type than str, int or bool is a fault.
        path: Prefix of an attribute's name in a fault.
    """
    if len(attributes) > MAX_ATTRIBUTES:
        yield Fault(path.rstrip(".-"), f"an event must have at most {MAX_ATTRIBUTES} attributes")
        return
    for name in (name for name in _REQUIRED if name not in attributes):
        yield Fault(f"{path}{name}", "is missing (CloudEvents: REQUIRED)")
    found = [Fault(f"{path}{shown(name)}", reason) for name, reason in _find_broken(attributes)]
    yield from found
    if not found and not fits_into_headers(attributes, MAX_HEADER_BYTES):
        yield Fault(path.rstrip(".-"), f"the attributes must fit into headers of {MAX_HEADER_BYTES} bytes")


def _find_broken(attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in attributes.items():
        if name in _RULES:
            reason = _RULES[name](value)
        elif _NAME.fullmatch(name):
            reason = _check_value(value)
        else:
            reason = "an attribute's name must be lower-case letters and digits"
        if reason:
            yield name, reason


def fits_into_headers(attributes: Mapping[str, AttributeValue], limit_bytes: int) -> bool:
    """Tell whether the names and values are at most *limit_bytes* long as headers."""
    # A character has at most four bytes in UTF-8, and each byte has three characters in percent-encoding.
    if 12 * sum(len(name) + len(str(value)) for name, value in attributes.items()) <= limit_bytes:
        return True
    return sum(len(name) + len(header_text(value)) for name, value in attributes.items()) <= limit_bytes


def _check_value(value: Any) -> str | None:
    if isinstance(value, str):
        return _NOT_TEXT if NOT_TEXT.search(value) else None
    if isinstance(value, int):
        return None if -(2**31) <= value < 2**31 else "must be an integer of 32 bits (CloudEvents: Integer)"
    return "must be a string, an integer or a boolean"


def _check_text(value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return "must be a string that is not empty (CloudEvents: context attributes)"
    return _check_value(value)


def _check_specversion(value: Any) -> str | None:
    return None if value == SPECVERSION else f"must be {SPECVERSION!r} (CloudEvents: specversion)"


def _check_id(value: Any) -> str | None:
    fault = f"must have at most {MAX_ID_BYTES} bytes"
    return _check_text(value) or (None if len(value.encode()) <= MAX_ID_BYTES else fault)


def _check_source(value: Any) -> str | None:
    fault = "must be a URI reference (CloudEvents: source, RFC 3986)"
    return _check_text(value) or (None if _URI_REFERENCE.fullmatch(value) else fault)


def _check_schema(value: Any) -> str | None:
    fits = isinstance(value, str) and _URI.fullmatch(value) and _URI_REFERENCE.fullmatch(value)
    return None if fits else "must be an absolute URI (CloudEvents: dataschema, RFC 3986)"


def _check_media_type(value: Any) -> str | None:
    fits = isinstance(value, str) and _MEDIA_TYPE.fullmatch(value)
    return None if fits else "must be a media type in ASCII (CloudEvents: datacontenttype, RFC 2046)"


def _check_time(value: Any) -> str | None:
    if not isinstance(value, str):
        return "must be a timestamp (CloudEvents: time, RFC 3339)"
    try:
        parse_time(value)
    except ValueError as error:
        return str(error)
    return None


def parse_time(text: str) -> datetime:
    """
    Return the time of an RFC 3339 timestamp, cut to microseconds.

    Raises:
        ValueError: *text* is not a timestamp, or names a time that does not exist.
    """
    if not _TIMESTAMP.fullmatch(text):
        raise ValueError("must be a timestamp (CloudEvents: time, RFC 3339)")
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise ValueError("must be a timestamp that exists (CloudEvents: time, RFC 3339)") from error


_REQUIRED = ("specversion", "id", "source", "type")
_RULES = {
    "specversion": _check_specversion,
    "id": _check_id,
    "source": _check_source,
    "type": _check_text,
    "subject": _check_text,
    "time": _check_time,
    "datacontenttype": _check_media_type,
    "dataschema": _check_schema,
}
