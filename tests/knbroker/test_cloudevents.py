"""Events on the wire: what is read, what is refused and why, and that nothing changes on the way through."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knbroker.cloudevents import Event, MalformedEventError, read, write

NEEDED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "a.b"}
Headers = list[tuple[bytes, bytes]]


def binary(**attributes: str) -> Headers:
    """Headers of an event in binary mode; an empty text leaves an attribute out."""
    return [(f"ce-{name}".encode(), value.encode()) for name, value in (NEEDED | attributes).items() if value]


def structured(**attributes: Any) -> tuple[Headers, bytes]:
    """An event in structured mode; None leaves an attribute out."""
    document = {name: value for name, value in (NEEDED | attributes).items() if value is not None}
    return [(b"content-type", b"application/cloudevents+json; charset=utf-8")], json.dumps(document).encode()


def test_binary_mode() -> None:
    """Attributes from headers, the media type from its own, the body untouched."""
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
def test_structured_mode(given: dict[str, Any], data: bytes | None) -> None:
    """Data is JSON, text of another media type, or bytes in base64."""
    event = read(*structured(**given))
    assert event is not None
    assert event.data == data


def test_numbers_and_truth_values_are_attributes() -> None:
    """The type system has them, and null is as good as nothing."""
    event = read(*structured(count=3, urgent=True))
    assert event is not None
    assert (event.attributes["count"], event.attributes["urgent"]) == (3, True)
    assert read([(b"content-type", b"application/cloudevents+json")], b'{"specversion":"1.0","id":"1","source":"/s",'
                b'"type":"t","subject":null,"data":null}') == Event({**NEEDED, "type": "t"})  # fmt: skip


def test_what_does_not_say_that_it_is_an_event_is_none() -> None:
    """Neither a media type of CloudEvents nor ce-specversion."""
    assert read([(b"content-type", b"application/json")], b"{}") is None
    assert read([(b"ce-id", b"1")], b"{}") is None


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"id": ""}, "id is missing"),
        ({"source": ""}, "source is missing"),
        ({"type": ""}, "type is missing"),
        ({"id": '""'}, "id must not be empty"),
        ({"specversion": "0.3"}, "specversion must be 1.0"),
        ({"specversion": "2.0"}, "specversion must be 1.0"),
        ({"source": "no uri"}, "source must be a URI reference"),
        ({"time": "yesterday"}, "time must be a timestamp (RFC 3339)"),
        ({"dataschema": "/relative"}, "dataschema must be an absolute URI"),
        ({"type": "a%00b"}, "type must be UTF-8 without control characters or noncharacters"),
        ({"subject": "%ff"}, "subject must be UTF-8 without control characters or noncharacters"),
        ({"type": "%f0%9f%bf%be"}, "type must be UTF-8 without control characters or noncharacters"),
        ({"x_y": "1"}, "'x_y' is no attribute's name: lower-case letters and digits"),
        ({"id": "", "type": "", "time": "x"}, "id is missing; type is missing; time must be a timestamp (RFC 3339)"),
    ],
)
def test_attributes_that_break_their_rule(attributes: dict[str, str], reason: str) -> None:
    """The attribute and its rule are named, all of them at once, in either mode."""
    with pytest.raises(MalformedEventError) as caught:
        read(binary(**attributes), b"")
    assert (str(caught.value), caught.value.status) == (reason, 400)


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        (*structured(id=None), "id is missing"),
        (*structured(id=7), "id must not be empty"),
        (*structured(id=2**40), "id must not be empty"),
        (*structured(count=1.5), "count must be a string, an integer or a boolean"),
        (*structured(count=2**31), "count must be an integer of 32 bits"),
        (*structured(datacontenttype="json"), "datacontenttype must be a media type in ASCII (RFC 2046)"),
        (*structured(datacontenttype="a/b; c=€"), "datacontenttype must be a media type in ASCII (RFC 2046)"),
        (
            [*binary(), (b"content-type", b'a/b; c="\xe9"')],
            b"",
            "datacontenttype must be a media type in ASCII (RFC 2046)",
        ),
        (structured()[0], b"{", "the body is no JSON object with an event in it"),
        (structured()[0], b"[]", "the body is no JSON object with an event in it"),
        (structured()[0], b'{"id": "\xff"}', "the body is no JSON object with an event in it"),
        (structured()[0], b"[" * 100_000, "the body is no JSON object with an event in it"),
        (*structured(data_base64="?"), "the body is no JSON object with an event in it"),
        (
            [(b"content-type", b"application/cloudevents-batch+json")],
            b"[]",
            "application/cloudevents-batch+json is not taken, only application/cloudevents+json and binary mode",
        ),
        (
            [*binary(), (b"ce-subject", b"\xff")],
            b"",
            "subject must be UTF-8 without control characters or noncharacters",
        ),
    ],
)
def test_malformed_events(headers: Headers, body: bytes, reason: str) -> None:
    """Not JSON, not UTF-8, of the wrong type, several at once, or what no request could carry."""
    with pytest.raises(MalformedEventError) as caught:
        read(headers, body)
    assert str(caught.value) == reason


def as_raw(headers: list[tuple[str, str]]) -> Headers:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def test_data_that_is_no_json_is_carried_in_base64() -> None:
    """In structured mode, whether the media type says so or wrongly says otherwise."""
    for event in (Event(NEEDED, b"{"), Event({**NEEDED, "datacontenttype": "text/plain"}, b"x")):
        _, body = write(event, structured=True)
        assert "data_base64" in json.loads(body)


_texts = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn", "Co")), min_size=1, max_size=20)


@given(subject=_texts, extension=_texts, data=st.none() | st.binary(min_size=1), structured_mode=st.booleans())
def test_an_event_survives_the_way(subject: str, extension: str, data: bytes | None, structured_mode: bool) -> None:  # noqa: FBT001
    """What is written in either mode is read as it was."""
    event = Event({**NEEDED, "subject": subject, "zone": extension}, data)
    headers, body = write(event, structured=structured_mode)
    assert read(as_raw(headers), body) == event


def test_an_event_is_extended_not_changed() -> None:
    """Further attributes make another event."""
    event = Event(NEEDED, b"1")
    assert event.extended(id="2", count=3) == Event({**NEEDED, "id": "2", "count": 3}, b"1")
    assert event.attributes["id"] == "1"
    assert dict(write(event.extended(urgent=True), structured=False)[0])["ce-urgent"] == "true"
