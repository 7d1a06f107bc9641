import json
import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cloudevents import conversion
from cloudevents.http import CloudEvent as SdkEvent
from cloudevents.http import from_http
from hypothesis import given
from hypothesis import strategies as st

from chassis.wire.cloudevents import CloudEvent, derive_id, is_event, read_events, write_binary, write_structured
from chassis.wire.event_rules import parse_time
from chassis.wire.problems import Fault, InvalidRequestError, NotJsonError, UnsupportedMediaTypeError

REQUIRED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}


def binary(attributes: dict[str, str], body: bytes = b"{}", content_type: str = "application/json"):
    headers = [(f"ce-{name}".encode(), value.encode("latin-1")) for name, value in attributes.items()]
    return read_events([(b"content-type", content_type.encode()), *headers], body)[0]


def structured(document: object, content_type: str = "application/cloudevents+json") -> CloudEvent:
    # Python's json writes Infinity, which is not JSON; 1e999 is JSON and exceeds every float.
    body = document if isinstance(document, bytes) else json.dumps(document).replace("Infinity", "1e999").encode()
    return read_events([(b"content-type", content_type.encode())], body)[0]


FULL = {
    **REQUIRED,
    "subject": "user_1",
    "time": "2026-01-02T03:04:05.5Z",
    "dataschema": "https://example.com/schema",
    "traceparent": "00-1",
}


def test_binary_mode_is_read():
    """The reader takes attributes from ce- headers, the data's type from Content-Type, and the data from the body."""
    assert binary(FULL, b'{"a": 1}', "application/json; charset=utf-8") == CloudEvent(
        "1",
        "/s",
        "t",
        subject="user_1",
        time=datetime(2026, 1, 2, 3, 4, 5, 500_000, UTC),
        data=b'{"a": 1}',
        dataschema="https://example.com/schema",
        extensions={"traceparent": "00-1"},
    )


def test_structured_mode_is_read():
    """The reader takes the event from one JSON document and keeps the exact bytes of its data."""
    document = {
        **FULL,
        "datacontenttype": "application/json",
        "data": {"a": 1},
        "number": 7,
        "flag": True,
        "absent": None,
    }
    event = structured(document, "application/cloudevents+json; charset=UTF-8")
    assert event.data == b'{"a": 1}'
    assert event.extensions == {"traceparent": "00-1", "number": 7, "flag": True}
    assert event.subject == "user_1"


def test_batch_mode_is_read():
    """The reader checks each event of a batch and reports faults with the event's index."""
    headers = [(b"content-type", b"application/cloudevents-batch+json")]
    events = read_events(headers, json.dumps([{**REQUIRED, "id": "a"}, {**REQUIRED, "id": "b"}]).encode())
    assert [event.id for event in events] == ["a", "b"]
    with pytest.raises(InvalidRequestError) as caught:
        read_events(headers, json.dumps([REQUIRED, {**REQUIRED, "id": ""}, 5]).encode())
    assert [fault.path for fault in caught.value.faults] == ["$[1].id", "$[2]"]
    for body in (b"{}", json.dumps([REQUIRED] * 257).encode()):
        with pytest.raises(InvalidRequestError):
            read_events(headers, body)
    with pytest.raises(NotJsonError):
        read_events(headers, b"[")


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_required_attributes_must_be_present(name, mode):
    """The reader refuses an event with a missing or empty required attribute and names the attribute."""
    for attributes in ({k: v for k, v in REQUIRED.items() if k != name}, {**REQUIRED, name: ""}):
        with pytest.raises(InvalidRequestError) as caught:
            binary(attributes) if mode == "binary" else structured(attributes)
        assert [fault.path for fault in caught.value.faults] == [f"ce-{name}" if mode == "binary" else f"$.{name}"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("specversion", "0.3"),
        ("specversion", "2.0"),
        ("source", "has space"),
        ("source", "pipe|d"),
        ("type", "line\nbreak"),
        ("id", "nul\0"),
        ("subject", ""),
        ("time", "yesterday"),
        ("time", "2026-13-01T00:00:00Z"),
        ("time", "2026-01-01"),
        ("time", "2026-01-01T00:00:00"),
        ("time", "2026-01-01 00:00:00Z"),
        ("dataschema", "relative/path"),
        ("dataschema", "not a uri"),
        ("datacontenttype", "json"),
        ("datacontenttype", "text/plain"),
        ("datacontenttype", "application/json; name=€"),
        ("id", 5),
        ("id", ["a"]),
        ("source", {}),
        ("extra", [1]),
        ("extra", 1.5),
        ("Extra", "x"),
        ("my-ext", "x"),
        ("ext", "ctl\u0001"),
        ("data_base64", "?"),
        ("id", "x" * 1025),
        ("id", "é" * 513),
        ("time", "2026-02-31T00:00:00Z"),
        ("time", "2026-01-01T00:00:00+24:00"),
        ("count", 2**31),
        ("count", -(2**31) - 1),
        ("count", math.inf),
        ("subject", "a\x7fb"),
        ("subject", "\U0001ffff"),
    ],
)
def test_every_attribute_is_validated(name, value):
    """An attribute with an invalid value is the only fault that the reader reports."""
    with pytest.raises(InvalidRequestError) as caught:
        structured({**REQUIRED, name: value})
    assert [fault.path for fault in caught.value.faults] == [f"$.{name}"]


def test_attributes_are_bounded_to_fit_into_headers():
    """A broker delivers a document's attributes as headers, so their number and length are limited in either mode."""
    for attributes in ({f"x{n}": "a" for n in range(61)}, {"x": "a" * 32_800}, {"x": "€" * 4000}):
        with pytest.raises(InvalidRequestError) as caught:
            structured({**REQUIRED, **attributes})
        assert [fault.path for fault in caught.value.faults] == ["$"]
        assert (
            "at most 64 attributes" in caught.value.faults[0].detail or "32768 bytes" in caught.value.faults[0].detail
        )
    assert structured({**REQUIRED, "data": "a" * 100_000}).data.startswith(b'"aaa')
    with pytest.raises(InvalidRequestError, match="not valid") as caught:
        structured({**REQUIRED, "x": "a" * 70_000, "data": {}})
    assert "65536 bytes besides its data" in caught.value.faults[0].detail


def test_data_can_be_base64():
    """A document may carry JSON in base64; other data is refused because of its media type."""
    assert structured({**REQUIRED, "data_base64": "e30="}).data == b"{}"


def test_data_are_given_once():
    """An event with data in both forms is refused: readers could take either."""
    with pytest.raises(InvalidRequestError) as caught:
        structured({**REQUIRED, "data": {}, "data_base64": "e30="})
    assert caught.value.faults == (Fault("$.data_base64", "must be absent beside data"),)


def test_surrounding_quotes_are_removed():
    """The reader removes a pair of quotes around a value, and keeps a single quote as part of the value."""
    for text, subject in (('a"', 'a"'), ('"', '"'), ('"a"', "a"), (r'"a\"b"', 'a"b'), ('""a""', '"a"')):
        assert binary({**REQUIRED, "subject": text}).subject == subject


def test_a_null_attribute_is_absent():
    """The reader treats an attribute that is null as absent, also data_base64."""
    event = structured({**REQUIRED, "subject": None, "data_base64": None, "more": None, "data": {}})
    assert (event.subject, event.extensions, event.data) == (None, {}, b"{}")


def test_all_faults_are_reported_together():
    """The reader lists every fault of an event."""
    with pytest.raises(InvalidRequestError) as caught:
        structured({"specversion": "9", "source": " ", "time": 5, "Bad": 1})
    assert {fault.path for fault in caught.value.faults} == {
        "$.specversion",
        "$.id",
        "$.source",
        "$.type",
        "$.time",
        "$.Bad",
    }


def test_other_formats_are_refused():
    """The reader refuses events in XML."""
    with pytest.raises(UnsupportedMediaTypeError):
        structured(b"", "application/cloudevents+xml")


def test_header_values_are_percent_encoded():
    """The reader decodes percent-encoded header values."""
    assert binary({**REQUIRED, "subject": "Euro%20%E2%82%AC%20%F0%9F%98%80"}).subject == "Euro € 😀"


def test_the_data_type_is_not_a_ce_header():
    """In binary mode the data's type is in Content-Type alone."""
    with pytest.raises(InvalidRequestError) as caught:
        binary({**REQUIRED, "datacontenttype": "application/json"})
    assert caught.value.faults[0].path == "ce-datacontenttype"


def test_curls_default_content_type_is_json():
    """The reader accepts the content type that `curl -d` sends with ce- headers."""
    assert binary(REQUIRED, content_type="application/x-www-form-urlencoded").datacontenttype == "application/json"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"content-type", b"application/json")], False),
        ([(b"content-type", b"Application/CloudEvents+json; charset=utf-8")], True),
        ([(b"content-type", b"application/cloudevents-batch+json")], True),
        ([(b"host", b"x"), (b"ce-id", b"1")], True),
        ([], False),
    ],
)
def test_events_are_recognized_by_their_headers(headers, expected):
    """A CloudEvents content type or any ce- header marks a request as an event."""
    assert is_event(headers) is expected


def test_times_are_parsed_to_the_microsecond():
    """The reader accepts offsets, fractions of any length and lower case, and keeps the moment to the microsecond."""
    for text in ("2026-01-01T01:00:00.123456789+01:00", "2026-01-01t00:00:00.123456z"):
        assert parse_time(text) == datetime(2026, 1, 1, 0, 0, 0, 123_456, UTC)
    assert parse_time("2026-01-01T00:00:00.5-02:00") == datetime(
        2026, 1, 1, 0, 0, 0, 500_000, timezone(timedelta(hours=-2))
    )


def test_derived_ids_are_the_same_for_every_delivery():
    """The id of a reply depends only on the cause and on the purpose."""
    event = CloudEvent("1", "/s", "t")
    assert derive_id(event, "a") == derive_id(CloudEvent("1", "/s", "other"), "a")
    assert len({derive_id(event, "a"), derive_id(event, "b"), derive_id(CloudEvent("1", "/x", "t"), "a")}) == 3


text = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn")), min_size=1, max_size=20)
sources = st.from_regex(r"[A-Za-z0-9/:.?#@_~-]{1,30}", fullmatch=True)
events = st.builds(
    CloudEvent,
    id=text,
    source=sources,
    type=text,
    subject=st.none() | text,
    time=st.none() | st.datetimes(timezones=st.just(UTC)),
    data=st.sampled_from([b"", b"{}", b'{"a":[1,"\xc3\xa9"]}']),
    extensions=st.dictionaries(st.from_regex(r"x[a-z0-9]{1,8}", fullmatch=True), text, max_size=2),
)


@given(events)
def test_written_events_can_be_read(event):
    """The reader returns every event as it was written, in both modes."""
    assert read_events(write_binary(event), event.data) == [event]
    headers = [(b"content-type", b"application/cloudevents+json")]
    (read,) = read_events(headers, write_structured(event))
    assert (read.data and json.loads(read.data)) == (event.data and json.loads(event.data))
    assert read.extensions == event.extensions
    assert (read.id, read.source, read.type, read.subject, read.time) == (
        event.id, event.source, event.type, event.subject, event.time,
    )  # fmt: skip


def test_events_written_by_the_sdk_can_be_read():
    """The reader returns every attribute of an event that the SDK writes, in both modes."""
    event = SdkEvent({"type": "t", "source": "/s", "id": "1", "subject": "x", "custom": "y"}, {"a": 1})
    for headers, body in (conversion.to_binary(event), conversion.to_structured(event)):
        (read,) = read_events([(k.lower().encode(), v.encode()) for k, v in headers.items()], bytes(body))
        assert (read.id, read.source, read.type, read.subject) == ("1", "/s", "t", "x")
        assert json.loads(read.data) == {"a": 1}
        assert read.extensions == {"custom": "y"}
        assert read.time is not None


def test_the_sdk_reads_written_events():
    """The SDK that functions-framework pins reads the events written here, in both modes."""
    event = CloudEvent("1", "/s", "t", subject="x", data=b'{"a":1}', extensions={"custom": "y"})
    binary_headers = {name.decode(): value.decode() for name, value in write_binary(event)}
    for headers, body in (
        (binary_headers, event.data),
        ({"content-type": "application/cloudevents+json"}, write_structured(event)),
    ):
        read = from_http(headers, body)
        assert (read["id"], read["source"], read["type"], read["subject"], read["custom"]) == ("1", "/s", "t", "x", "y")
        assert read.data == {"a": 1}
