"""
Read and write CloudEvents 1.0 over HTTP, for brokers and for functions.

An `Event` has any attributes and any data, as a broker carries it. A `CloudEvent` is an event with JSON data and typed
attributes, as a function reads it. The codec reads binary mode (attributes in ce- headers, data in the body), structured
mode (one JSON document) and batch mode (an array of documents). It checks every attribute against its rule
(`event_rules`), and reports the faults of an event together.

The SDK that functions-framework pins reads and writes the same events, as tests show. The codec replaces it, because
the SDK checks less, stops at the first fault, leaves percent-encoding to the caller, and is several times slower
(docs/adr/0009-cloudevents.md).

Sources: CloudEvents 1.0.2; HTTP Protocol Binding 1.0.2, section 3; JSON Event Format 1.0.2.
"""

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import msgspec
from msgspec import Raw, Struct

from chassis.wire.decoder import MAX_REFUSED_BYTES, NOT_READ
from chassis.wire.event_rules import SPECVERSION, AttributeValue, find_attribute_faults, header_text, parse_time
from chassis.wire.headers import RawHeaders, find_header
from chassis.wire.json_text import (
    CROWDED,
    INTEGER,
    LONG_BYTES,
    NOT_DECODED,
    Uncrowded,
    explain_syntax,
    first_items,
    is_crowded,
    read_object,
)
from chassis.wire.problems import Fault, InvalidRequestError, Rejected, UnsupportedMediaTypeError

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
JSON = "application/json"

MAX_EVENTS = 256
# Limit of the JSON text of one event's attributes, which are decoded. Data are not decoded.
_MAX_DOCUMENT_BYTES = 64 * 1024

_PREFIX = b"ce-"
# curl -d sends this type by default, although the body is JSON.
_FORM = "application/x-www-form-urlencoded"
_NAMESPACE = uuid.UUID("6f0cd1f2-5c2b-5b0e-9a52-0b5a1f3a9c11")
_CORE = frozenset({"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"})

_value = msgspec.json.Decoder().decode


class _Payload(Struct):
    data: Raw = Raw()
    data_base64: Raw = Raw()


_payload = msgspec.json.Decoder(_Payload).decode


class Event(Struct, frozen=True):
    """
    One event, with its attributes as received.

    Attributes:
        attributes: All context attributes. In each mode, `datacontenttype` is the media type of the data.
        data: The payload; None without a payload.
    """

    attributes: Mapping[str, AttributeValue]
    data: bytes | None = None

    def extended(self, **attributes: AttributeValue) -> "Event":
        """Return the event with *attributes* added or replaced."""
        return Event({**self.attributes, **attributes}, self.data)


class CloudEvent(Struct, frozen=True):
    """
    One event with JSON data.

    Attributes:
        id: Unique within its source.
        source: URI reference of the event's origin.
        type: The type of the event, a reverse-DNS name.
        subject: The subject of the event within its source; None if absent.
        time: Time of the occurrence; None if absent.
        data: The payload, as JSON; empty without a payload.
        datacontenttype: Media type of *data*.
        dataschema: URI of the schema of *data*.
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
    extensions: Mapping[str, AttributeValue] = {}


def is_event(headers: RawHeaders) -> bool:
    """Tell whether a request with *headers* carries events, by its content type or a ce- header."""
    for name, _ in headers:
        if name.startswith(_PREFIX):
            return True
    return _kind(headers).startswith("application/cloudevents")


def derive_id(event: CloudEvent, purpose: str) -> str:
    """Return the id of an event caused by *event*. Each delivery of *event* leads to the same id."""
    return str(uuid.uuid5(_NAMESPACE, f"{event.source}\n{event.id}\n{purpose}"))


def read(headers: RawHeaders, body: bytes) -> Event | None:
    """
    Return the event of a request or an answer, in binary or structured mode; None for another body.

    Raises:
        NotJsonError: the document is not JSON.
        InvalidRequestError: an attribute breaks its rule; the faults name headers as `ce-NAME`.
        UnsupportedMediaTypeError: the event format is not JSON, or there are several events (batch mode).
    """
    kind = _kind(headers)
    if kind == STRUCTURED:
        return _read_document(body, "$")
    if kind.startswith("application/cloudevents"):
        raise UnsupportedMediaTypeError(f"{kind[:64]} is not taken, only {STRUCTURED} and binary mode")
    return _read_binary(headers, body) if find_header(headers, b"ce-specversion") is not None else None


def read_events(headers: RawHeaders, body: bytes) -> list[CloudEvent]:
    """
    Return the events of a request; in batch mode there may be several.

    Raises:
        NotJsonError: the document or the batch is not JSON.
        InvalidRequestError: an attribute breaks its rule, or data are not JSON; the faults name headers as `ce-NAME`.
        UnsupportedMediaTypeError: the event format is not JSON.
    """
    kind = _kind(headers)
    if kind == STRUCTURED:
        return [_typed(_read_document(body, "$"), "$.")]
    if kind == BATCH:
        return _read_batch(body)
    if kind.startswith("application/cloudevents"):
        raise UnsupportedMediaTypeError(f"events are read as {STRUCTURED} or {BATCH}")
    return [_typed(_read_binary(headers, body), "ce-")]


def write(event: Event, *, structured: bool) -> tuple[list[tuple[str, str]], bytes]:
    """Return the headers and the body of a message with *event*, in structured or in binary mode."""
    if structured:
        return [("content-type", f"{STRUCTURED}; charset=UTF-8")], _document(event)
    attributes = dict(event.attributes)
    media_type = attributes.pop("datacontenttype", None)
    headers = [(f"ce-{name}", header_text(value)) for name, value in attributes.items()]
    return headers + ([("content-type", str(media_type))] if media_type else []), event.data or b""


def write_binary(event: CloudEvent) -> list[tuple[bytes, bytes]]:
    """Return the headers of a message with *event* in binary mode, content type first. The body is the event's data."""
    headers, _ = write(Event(_attributes(event)), structured=False)
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return [(b"content-type", event.datacontenttype.encode("latin-1")), *(p for p in pairs if p[0] != b"content-type")]


def write_structured(event: CloudEvent) -> bytes:
    """Return *event* as a JSON document; its data must be JSON."""
    document: dict[str, Any] = _attributes(event)
    if event.data:
        document["data"] = Raw(event.data)
    return msgspec.json.encode(document)


def find_extension_faults(extensions: Mapping[str, Any], path: str) -> list[Fault]:
    """Return the faults of *extensions*, with *path* before each name."""
    event: dict[str, Any] = {"specversion": SPECVERSION, "id": "1", "source": "/", "type": "t"}
    return list(find_attribute_faults(event | dict(extensions), path))


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


def _kind(headers: RawHeaders) -> str:
    return (find_header(headers, b"content-type") or "").partition(";")[0].strip().lower()


def _is_json(media_type: AttributeValue | None) -> bool:
    kind = str(media_type or JSON).partition(";")[0].strip().lower()
    return kind.endswith(("/json", "+json"))


def _typed(event: Event, path: str) -> CloudEvent:
    given = event.attributes
    if not _is_json(given.get("datacontenttype")):
        raise InvalidRequestError(faults=[Fault(f"{path}datacontenttype", "data must be JSON")])
    media_type = str(given.get("datacontenttype", JSON)).partition(";")[0].strip().lower()
    core: dict[str, Any] = {name: given[name] for name in _CORE & given.keys() - {"specversion", "time"}}
    return CloudEvent(
        **core | {"datacontenttype": media_type},
        time=parse_time(str(given["time"])) if "time" in given else None,
        data=event.data or b"",
        extensions={name: value for name, value in given.items() if name not in _CORE},
    )


def _read_batch(body: bytes) -> list[CloudEvent]:
    if is_crowded(body):
        raise InvalidRequestError(faults=[Fault("$", CROWDED)])
    try:
        documents = first_items(body.strip(), MAX_EVENTS)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(faults=[Fault("$", "a batch must be an array of events")]) from error
    except NOT_DECODED as error:
        raise explain_syntax(body, error) from error
    if len(documents) > MAX_EVENTS:
        raise InvalidRequestError(faults=[Fault("$", f"a batch must have at most {MAX_EVENTS} events")])
    events: list[CloudEvent] = []
    faults = list(_read_each(documents, events))
    if faults:
        raise InvalidRequestError(faults=faults)
    return events


def _read_each(documents: Iterable[bytes], events: list[CloudEvent]) -> Iterator[Fault]:
    """Append the valid events of *documents* to *events*, and yield the faults of the other documents."""
    refused_bytes = 0
    for index, document in enumerate(documents):
        if refused_bytes > MAX_REFUSED_BYTES:
            yield Fault(f"$[{index}]", NOT_READ)
            return
        try:
            event = _typed(_read_document(document, f"$[{index}]"), f"$[{index}].")
            events.append(msgspec.structs.replace(event, data=Uncrowded(event.data)))
        except InvalidRequestError as error:
            yield from error.faults
            refused_bytes += len(document)


def _read_document(body: bytes, path: str) -> Event:
    try:
        body.decode()
        payload = _payload(body)
        if len(body) - len(bytes(payload.data)) - len(bytes(payload.data_base64)) > _MAX_DOCUMENT_BYTES:
            reason = f"an event must have at most {_MAX_DOCUMENT_BYTES} bytes besides its data"
            raise InvalidRequestError(faults=[Fault(path, reason)])
        members = read_object(_without(bytes(payload.data), body))
    except msgspec.ValidationError as error:
        raise InvalidRequestError(faults=[Fault(path, "an event must be an object")]) from error
    except NOT_DECODED as error:
        raise explain_syntax(body, error) from error
    members.pop("data", None)
    data, encoded = bytes(payload.data) or b"null", bytes(members.pop("data_base64", b"null"))
    attributes = {name: _read_value(bytes(raw)) for name, raw in members.items() if bytes(raw) != b"null"}
    _refuse(attributes, f"{path}.")
    return Event(attributes, _read_data(data, encoded, attributes.get("datacontenttype"), path))


def _without(data: bytes, document: bytes) -> bytes:
    """Return *document* with null in place of long *data*, because a second reading would double the time."""
    if len(data) <= LONG_BYTES:
        return document
    # Searching for all of the data would take as long as reading them.
    start = document.find(data[:64])
    after = document[start + len(data) :]
    return document if not document.startswith(data, start) or data in after else document[:start] + b"null" + after


def _read_value(raw: bytes) -> Any:
    """Return an attribute's value. JSON that cannot be a value stays raw, so that the attribute's rule refuses it."""
    return _value(raw) if raw[:1] in b'"tf' or INTEGER.fullmatch(raw) else raw


def _read_data(data: bytes, encoded: bytes, media_type: AttributeValue | None, path: str) -> bytes | None:
    if encoded != b"null":
        if data != b"null":
            raise InvalidRequestError(faults=[Fault(f"{path}.data_base64", "must be absent beside data")])
        try:
            return msgspec.json.decode(encoded, type=bytes)
        except msgspec.ValidationError as error:
            raise InvalidRequestError(faults=[Fault(f"{path}.data_base64", "must be base64")]) from error
    if data == b"null":
        return None
    is_text = data.startswith(b'"') and not _is_json(media_type)
    return msgspec.json.decode(data, type=str).encode() if is_text else data


def _read_binary(headers: RawHeaders, body: bytes) -> Event:
    attributes: dict[str, Any] = {}
    faults: list[Fault] = []
    for raw_name, raw_value in headers:
        if not raw_name.startswith(_PREFIX):
            continue
        name = raw_name[len(_PREFIX) :].decode("latin-1")
        if name in attributes:
            faults.append(Fault(f"ce-{name[:64]}", "is given twice"))
        try:
            attributes[name] = _unquote(raw_value.decode())
        except UnicodeDecodeError:
            attributes[name] = "-"
            faults.append(Fault(f"ce-{name[:64]}", "must be UTF-8, percent-encoded"))
    if attributes.pop("datacontenttype", None) is not None:
        faults.append(Fault("ce-datacontenttype", "stands in Content-Type, not in a header of its own"))
    if (media_type := find_header(headers, b"content-type")) and _kind(headers) != _FORM:
        attributes["datacontenttype"] = media_type
    _refuse(attributes, "ce-", faults)
    return Event(attributes, body or None)


def _unquote(text: str) -> str:
    """Decode an attribute in a header: a percent-encoded and possibly quoted string (HTTP binding 3.1.3.2)."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    return unquote(text, errors="strict")


def _refuse(attributes: Mapping[str, Any], path: str, faults: Iterable[Fault] = ()) -> None:
    found = list(find_attribute_faults(attributes, path))
    if found or faults:
        told = {fault.path for fault in faults}
        found = [*faults, *(fault for fault in found if fault.path not in told)]
        raise InvalidRequestError("the event breaks rules of CloudEvents 1.0", faults=found)


def _document(event: Event) -> bytes:
    document: dict[str, Any] = dict(event.attributes)
    if event.data is not None:
        # Readers take null for missing data.
        plain = _is_json(document.get("datacontenttype")) and event.data.strip() != b"null" and _is_one(event.data)
        document |= {"data": Raw(event.data)} if plain else {"data_base64": event.data}
    return msgspec.json.encode(document)


def _is_one(data: bytes) -> bool:
    """Tell whether *data* is a single JSON text in UTF-8."""
    try:
        msgspec.json.decode(data)
    except NOT_DECODED:
        return False
    return True


def explain(error: Rejected) -> str:
    """Return the reasons for refusing an event as one line: each fault with its path."""
    listed = "; ".join(map(str, error.faults))
    return listed or (f"{error.title}: {error.detail}" if error.detail else error.title)
