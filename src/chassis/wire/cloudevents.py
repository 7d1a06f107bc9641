"""
CloudEvents 1.0 over HTTP: the one module that knows how an event looks on the wire.

Binary mode (attributes in ce- headers, data in the body), structured mode (one JSON document) and batch mode (an
array of them) are read; every attribute is checked against its rule, and all faults of an event come at once. The
SDK that functions-framework pins reads and writes the same events (tests hold the two together); it is not used
here, because it checks less, stops at the first fault, leaves percent-encoding to the caller, and costs several
times as much (docs/adr/0009-cloudevents.md).

Sources: CloudEvents 1.0.2, sections "Context Attributes" and "Type System"; HTTP Protocol Binding 1.0.2, section 3;
JSON Event Format 1.0.2.
"""

import math
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from msgspec import Raw, Struct

from chassis.wire.decoding import NOT_TEXT
from chassis.wire.problems import Fault, InvalidRequestError, NotJsonError, UnsupportedMediaTypeError

SPECVERSION = "1.0"
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
JSON = "application/json"

MAX_EVENTS = 256

RawHeaders = Sequence[tuple[bytes, bytes]]

_PREFIX = b"ce-"
# What curl -d sends when told nothing else; the body is JSON all the same.
_FORM = "application/x-www-form-urlencoded"
_NAMESPACE = uuid.UUID("6f0cd1f2-5c2b-5b0e-9a52-0b5a1f3a9c11")

# RFC 3986: what may stand in a URI reference; RFC 3986 section 3: a scheme makes it absolute.
_URI_REFERENCE = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:.+")
# RFC 3339, section 5.6.
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")
# RFC 2045, section 5.1; ASCII throughout, for it becomes a header as it is.
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(?:\s*;[ -~]*)?", re.ASCII)
_NAME = re.compile(r"[a-z0-9]+")
_NO_TEXT = "must not hold control characters, unpaired surrogates or noncharacters (CloudEvents: String)"
# HTTP binding 3.1.3.2: in a header everything but these printable characters is percent-encoded.
_HEADER_SAFE = "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"

_document = msgspec.json.Decoder(dict[str, Raw])
_documents = msgspec.json.Decoder(list[Raw])
_value = msgspec.json.Decoder()


class CloudEvent(Struct, frozen=True):
    """
    One event.

    Attributes:
        id: Unique within its source.
        source: URI reference of where it came from.
        type: What kind of event, reverse-DNS.
        subject: What it is about; None where it does not say.
        time: When it happened; None where it does not say.
        data: The payload's bytes, JSON for the events of this project; empty without one.
        datacontenttype: Media type of *data*.
        dataschema: URI of the schema *data* adheres to.
        extensions: Further attributes.
    """

    id: str
    source: str
    type: str
    subject: str | None = None
    time: datetime | None = None
    data: bytes = b""
    datacontenttype: str = JSON
    dataschema: str | None = None
    extensions: Mapping[str, str | int | bool] = {}


def is_event(headers: RawHeaders) -> bool:
    """Tell whether a request with *headers* carries events: the content type says so, or a ce- header does."""
    for name, value in headers:
        if name.startswith(_PREFIX):
            return True
        if name == b"content-type" and value.lower().startswith(b"application/cloudevents"):
            return True
    return False


def derive_id(event: CloudEvent, purpose: str) -> str:
    """Return the id of an event caused by *event*: the same for every delivery of it, so that it is counted once."""
    return str(uuid.uuid5(_NAMESPACE, f"{event.source}\n{event.id}\n{purpose}"))


def read_events(headers: RawHeaders, body: bytes) -> list[CloudEvent]:
    """
    Return the events of a request: one, or in batch mode as many as there are.

    Raises:
        NotJsonError: structured or batch mode, and the body is no JSON.
        InvalidRequestError: an attribute breaks its rule; all faults are listed, headers as `ce-NAME`.
        UnsupportedMediaTypeError: an event format other than JSON, or data that is not JSON.
    """
    media_type = _media_type(headers)
    if media_type == STRUCTURED:
        return [_read_document(body, "$")]
    if media_type == BATCH:
        return _read_batch(body)
    if media_type.startswith("application/cloudevents"):
        raise UnsupportedMediaTypeError(f"events are read as {STRUCTURED} or {BATCH}")
    return [_read_binary(headers, media_type, body)]


def write_binary(event: CloudEvent) -> list[tuple[bytes, bytes]]:
    """Return the headers that carry *event* in binary mode; its data is the body."""
    pairs = [(name, quote(_text(value), safe=_HEADER_SAFE)) for name, value in _attributes(event).items()]
    return [
        (b"content-type", event.datacontenttype.encode("latin-1")),
        *((_PREFIX + name.encode(), value.encode()) for name, value in pairs if name != "datacontenttype"),
    ]


def write_structured(event: CloudEvent) -> bytes:
    """Return *event* as a JSON document; its data must be JSON."""
    document: dict[str, Any] = _attributes(event)
    if event.data:
        document["data"] = Raw(event.data)
    return msgspec.json.encode(document)


def _attributes(event: CloudEvent) -> dict[str, Any]:
    attributes = {
        "specversion": SPECVERSION,
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": event.time.isoformat().replace("+00:00", "Z") if event.time else None,
        "datacontenttype": event.datacontenttype if event.data else None,
        "dataschema": event.dataschema,
        **event.extensions,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _text(value: str | int | bool) -> str:  # noqa: FBT001 - a CloudEvents value
    return str(value).lower() if isinstance(value, bool) else str(value)


def _media_type(headers: RawHeaders) -> str:
    for name, value in headers:
        if name == b"content-type":
            return value.decode("latin-1").partition(";")[0].strip().lower()
    return ""


def _read_batch(body: bytes) -> list[CloudEvent]:
    try:
        documents = _documents.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if isinstance(error, msgspec.ValidationError):
            raise InvalidRequestError(faults=[Fault("$", "a batch must be an array of events")]) from error
        raise NotJsonError("the body is no JSON") from error
    if len(documents) > MAX_EVENTS:
        raise InvalidRequestError(faults=[Fault("$", f"a batch must have at most {MAX_EVENTS} events")])
    events: list[CloudEvent] = []
    faults: list[Fault] = []
    for index, document in enumerate(documents):
        try:
            events.append(_read_document(bytes(document), f"$[{index}]"))
        except InvalidRequestError as error:
            faults += error.faults
    if faults:
        raise InvalidRequestError(faults=faults)
    return events


def _read_document(body: bytes, path: str) -> CloudEvent:
    try:
        raw = _document.decode(body)
        attributes = {name: _decode_attribute(raw[name]) for name in raw if name != "data"}
    except msgspec.ValidationError as error:
        raise InvalidRequestError(faults=[Fault(path, "an event must be an object")]) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotJsonError("the body is no JSON") from error
    faults: list[Fault] = []
    if attributes.pop("data_base64", None) is not None:
        # Binary data would not be JSON, and JSON needs no base64.
        faults.append(Fault(f"{path}.data_base64", "data must be JSON"))
    for name, value in attributes.items():
        if not isinstance(value, str | int | bool | None):
            faults.append(Fault(f"{path}.{name}", "must be a string, an integer or a boolean"))
        elif isinstance(value, int) and not -(2**31) <= value < 2**31:
            faults.append(Fault(f"{path}.{name}", "must be an integer of 32 bits (CloudEvents: Integer)"))
    return _make(attributes, bytes(raw["data"]) if "data" in raw else b"", f"{path}.", faults)


def _decode_attribute(raw: Raw) -> Any:
    try:
        return _value.decode(raw)
    except msgspec.ValidationError:
        # A number too large for any number there is.
        return math.inf


def _read_binary(headers: RawHeaders, media_type: str, body: bytes) -> CloudEvent:
    attributes: dict[str, Any] = {}
    faults: list[Fault] = []
    for raw_name, raw_value in headers:
        if not raw_name.startswith(_PREFIX):
            continue
        name = raw_name[len(_PREFIX) :].decode("latin-1")
        if name in attributes:
            faults.append(Fault(f"ce-{name}", "is given twice"))
        try:
            attributes[name] = _unquote(raw_value.decode())
        except UnicodeDecodeError:
            attributes[name] = ""
            faults.append(Fault(f"ce-{name}", "must be UTF-8, percent-encoded"))
    if "datacontenttype" in attributes:
        faults.append(Fault("ce-datacontenttype", "stands in Content-Type, not in a header of its own"))
    if media_type and media_type != _FORM:
        attributes["datacontenttype"] = media_type
    return _make(attributes, body, "ce-", faults)


def _unquote(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    return unquote(text, errors="strict")


def _make(attributes: Mapping[str, Any], data: bytes, path: str, faults: list[Fault]) -> CloudEvent:
    """
    Return the event, or raise with every fault.

    Args:
        attributes: As they were found; null counts as absent.
        data: The payload.
        path: What stands before an attribute's name in a fault.
        faults: What was found wrong already.
    """
    present = {name: value for name, value in attributes.items() if value is not None}
    checked = {fault.path for fault in faults}
    for name, rule in _RULES.items():
        if f"{path}{name}" not in checked and (reason := rule(present.get(name))):
            faults.append(Fault(f"{path}{name}", reason))
    extensions = {name: value for name, value in present.items() if name not in _RULES}
    faults += find_extension_faults(extensions, path)
    if faults:
        raise InvalidRequestError("the event breaks rules of CloudEvents 1.0", faults=faults)
    return CloudEvent(
        id=present["id"],
        source=present["source"],
        type=present["type"],
        subject=present.get("subject"),
        time=parse_time(present["time"]) if "time" in present else None,
        data=data,
        datacontenttype=present.get("datacontenttype", JSON),
        dataschema=present.get("dataschema"),
        extensions=extensions,
    )


def find_extension_faults(extensions: Mapping[str, Any], path: str) -> list[Fault]:
    """List which of *extensions* break the rules of names or of text; *path* stands before each name."""
    faults = []
    for name, value in extensions.items():
        if not _NAME.fullmatch(name):
            faults.append(Fault(f"{path}{name[:64]}", "an attribute's name must be lower-case letters and digits"))
        elif isinstance(value, str) and NOT_TEXT.search(value):
            faults.append(Fault(f"{path}{name}", _NO_TEXT))
    return faults


def _check_specversion(value: Any) -> str | None:
    if value is None:
        return "is missing (CloudEvents: specversion, REQUIRED)"
    return None if value == SPECVERSION else f"must be {SPECVERSION!r} (CloudEvents: specversion)"


def _check_required_text(value: Any) -> str | None:
    if value is None:
        return "is missing (CloudEvents: REQUIRED)"
    return _check_text(value)


def _check_text(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        return "must be a string that is not empty (CloudEvents: context attributes)"
    if NOT_TEXT.search(value):
        return _NO_TEXT
    return None


def _check_source(value: Any) -> str | None:
    if reason := _check_required_text(value):
        return reason
    return None if _URI_REFERENCE.fullmatch(value) else "must be a URI reference (CloudEvents: source, RFC 3986)"


def _check_schema(value: Any) -> str | None:
    if value is None:
        return None
    fits = isinstance(value, str) and _URI.fullmatch(value) and _URI_REFERENCE.fullmatch(value)
    return None if fits else "must be an absolute URI (CloudEvents: dataschema, RFC 3986)"


def _check_media_type(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _MEDIA_TYPE.fullmatch(value):
        return "must be a media type in ASCII (CloudEvents: datacontenttype, RFC 2046)"
    media_type = value.partition(";")[0].strip().lower()
    return None if media_type == JSON or media_type.endswith("+json") else "data must be JSON"


def _check_time(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _TIMESTAMP.fullmatch(value):
        return "must be a timestamp (CloudEvents: time, RFC 3339)"
    try:
        parse_time(value)
    except ValueError:
        return "must be a timestamp that exists (CloudEvents: time, RFC 3339)"
    return None


def parse_time(text: str) -> datetime:
    """
    Return an RFC 3339 timestamp as a moment; digits beyond microseconds are cut.

    Raises:
        ValueError: there is no such moment.
    """
    whole, point, rest = text.upper().replace("Z", "+00:00").partition(".")
    if point:
        # datetime keeps microseconds; RFC 3339 allows more digits, and fewer than six.
        digits = re.match(r"\d+", rest)
        fraction = digits.group() if digits else ""
        whole += f".{fraction[:6].ljust(6, '0')}{rest[len(fraction) :]}"
    return datetime.fromisoformat(whole)


_RULES = {
    "specversion": _check_specversion,
    "id": _check_required_text,
    "source": _check_source,
    "type": _check_required_text,
    "subject": _check_text,
    "time": _check_time,
    "datacontenttype": _check_media_type,
    "dataschema": _check_schema,
}
