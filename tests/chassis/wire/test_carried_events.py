"""Events on the wire: reading, refusals with their reasons, and unchanged round trips."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.wire.cloudevents import Event, explain, read, read_events, write
from chassis.wire.problems import Rejected

NEEDED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "a.b"}
Headers = list[tuple[bytes, bytes]]


def binary(**attributes: str) -> Headers:
    """Return the headers of an event in binary mode; an empty text leaves an attribute out."""
    return [(f"ce-{name}".encode(), value.encode()) for name, value in (NEEDED | attributes).items() if value]


def structured(**attributes: Any) -> tuple[Headers, bytes]:
    """Return an event in structured mode; None leaves an attribute out."""
    document = {name: value for name, value in (NEEDED | attributes).items() if value is not None}
    return [(b"content-type", b"application/cloudevents+json; charset=utf-8")], json.dumps(document).encode()


def test_binary_mode_is_read() -> None:
    """Attributes come from headers and the media type from Content-Type; the body is not changed."""
    media_type = 'text/csv; header="present"'
    headers = [*binary(subject='"caf%C3%A9"', zone="b"), (b"content-type", media_type.encode()), (b"host", b"x")]
    assert read(headers, b"\xff,1") == Event(
        {**NEEDED, "subject": "café", "zone": "b", "datacontenttype": media_type}, b"\xff,1"
    )
    assert read(binary(), b"") == Event(NEEDED)


@pytest.mark.parametrize(
    ("given", "data"),
    [
        ({"data": {"a": 1}}, b'{"a": 1}'),
        ({"data": "text"}, b'"text"'),
        ({"data": "text", "datacontenttype": "text/plain"}, b"text"),
        ({"data": [1], "datacontenttype": "application/x+json"}, b"[1]"),
        ({"data_base64": "AP8="}, b"\x00\xff"),
        ({"data": 0, "subject": None}, b"0"),
        ({}, None),
    ],
)
def test_structured_mode_is_read(given: dict[str, Any], data: bytes | None) -> None:
    """Data is JSON, text of another media type, or bytes in base64."""
    event = read(*structured(**given))
    assert event is not None
    assert event.data == data


def test_a_request_without_event_headers_is_not_an_event() -> None:
    """A request without a CloudEvents media type and without ce-specversion is not an event."""
    assert read([(b"content-type", b"application/json")], b"{}") is None
    assert read([(b"ce-id", b"1")], b"{}") is None


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"id": ""}, "ce-id is missing"),
        ({"id": '""'}, "ce-id must be a string that is not empty"),
        ({"specversion": "0.3"}, "ce-specversion must be '1.0'"),
        ({"source": "no uri"}, "ce-source must be a URI reference"),
        ({"time": "yesterday"}, "ce-time must be a timestamp"),
        ({"time": "2026-02-31T00:00:00Z"}, "ce-time must be a timestamp that exists"),
        ({"dataschema": "/relative"}, "ce-dataschema must be an absolute URI"),
        ({"type": "a%00b"}, "ce-type must not hold control characters"),
        ({"subject": "%ff"}, "ce-subject must be UTF-8, percent-encoded"),
        ({"type": "%f0%9f%bf%be"}, "ce-type must not hold control characters"),
        ({"x_y": "1"}, "ce-x_y an attribute's name must be lower-case letters and digits"),
    ],
)
def test_invalid_attributes_are_refused(attributes: dict[str, str], reason: str) -> None:
    """The error names the invalid attribute and its rule."""
    with pytest.raises(Rejected) as caught:
        read(binary(**attributes), b"")
    assert explain(caught.value).startswith(reason)


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        (*structured(id=2**40), "$.id must be a string that is not empty"),
        (*structured(count=1.5), "$.count must be a string, an integer or a boolean"),
        (*structured(count=2**31), "$.count must be an integer of 32 bits"),
        (*structured(datacontenttype="json"), "$.datacontenttype must be a media type in ASCII"),
        ([*binary(), (b"content-type", b'a/b; c="\xe9"')], b"", "ce-datacontenttype must be a media type in ASCII"),
        (structured()[0], b"", "The body is not JSON: Input data was truncated"),
        (structured()[0], b"{", "The body is not JSON: Input data was truncated"),
        (structured()[0], b"{'id':1}", "The body is not JSON: "),
        (structured()[0], b"\xff", "The body is not JSON: "),
        *((structured()[0], body, "$ an event must be an object") for body in (b"[]", b"5", b"null")),
        (structured()[0], b'{"id": "\xff"}', "The body is not JSON: byte 8 is not UTF-8"),
        (structured()[0], b'{"id": "\\ud800"}', "$ must not hold unpaired surrogates"),
        (structured()[0], b"[" * 100_000, "$ an event must be an object"),
        (structured()[0], b'{"id":' + b"[" * 100_000, "The body is not JSON: nested too deeply"),
        (*structured(data_base64="?"), "$.data_base64 must be base64"),
        ([(b"content-type", b"application/cloudevents-batch+json")], b"[]", "The content type is not supported"),
        ([*binary(), (b"ce-subject", b"\xff")], b"", "ce-subject must be UTF-8, percent-encoded"),
        ([*binary(), (b"ce-id", b"2")], b"", "ce-id is given twice"),
    ],
)
def test_malformed_events_are_refused(headers: Headers, body: bytes, reason: str) -> None:
    """An event is refused if it is not JSON, not UTF-8, of a wrong type, a batch, or too long for a request."""
    with pytest.raises(Rejected) as caught:
        read(headers, body)
    assert explain(caught.value).startswith(reason)


def as_raw(headers: list[tuple[str, str]]) -> Headers:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def test_data_that_is_not_json_is_sent_in_base64() -> None:
    """Structured mode uses base64 for data that is not JSON, with and without a matching media type."""
    for event in (Event(NEEDED, b"{"), Event({**NEEDED, "datacontenttype": "text/plain"}, b"x")):
        _, body = write(event, structured=True)
        assert "data_base64" in json.loads(body)


_texts = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn", "Co")), min_size=1, max_size=20)


@given(subject=_texts, extension=_texts, data=st.none() | st.binary(min_size=1), structured_mode=st.booleans())
def test_a_round_trip_keeps_events(subject: str, extension: str, data: bytes | None, structured_mode: bool) -> None:  # noqa: FBT001
    """An event written in either mode is read as it was."""
    event = Event({**NEEDED, "subject": subject, "zone": extension}, data)
    headers, body = write(event, structured=structured_mode)
    assert read(as_raw(headers), body) == event


_any = st.text(max_size=12) | st.sampled_from(
    ["1.0", "2026-02-31T00:00:00Z", "2026-02-28T00:00:00.5Z", '"a"', 'a"', "%22", "/s", "", "a" * 1025]
)


@given(attributes=st.dictionaries(st.sampled_from([*NEEDED, "subject", "time", "zone"]), _any, max_size=3))
def test_a_function_reads_every_event_that_a_broker_accepts(attributes: dict[str, str]) -> None:
    """Both sides apply the same rules to any attributes and read the same values in either mode."""
    document = json.dumps({**NEEDED, **attributes, "data": {}}).encode()
    try:
        accepted = read([(b"content-type", b"application/cloudevents+json")], document)
    except Rejected:
        return
    assert accepted is not None
    for structured_mode in (False, True):
        headers, body = write(accepted, structured=structured_mode)
        (event,) = read_events(as_raw(headers), body)
        assert (event.id, event.subject) == (accepted.attributes["id"], accepted.attributes.get("subject"))


def test_extending_an_event_returns_a_new_event() -> None:
    """Additional attributes make a new event and leave the original unchanged."""
    event = Event(NEEDED, b"1")
    assert event.extended(id="2", count=3) == Event({**NEEDED, "id": "2", "count": 3}, b"1")
    assert event.attributes["id"] == "1"
    assert dict(write(event.extended(urgent=True), structured=False)[0])["ce-urgent"] == "true"
