"""The rules for deliveries as pure functions: Knative's retry table, back-off, replies and dead letters."""

import base64
import datetime as dt
import itertools
from email.utils import format_datetime
from typing import Any

import pytest

from chassis.wire.cloudevents import Event
from knbroker.delivery import (
    Delivery,
    DeliveryRequest,
    Failure,
    Stored,
    after,
    compose,
    destination,
    in_trace_of,
    judge,
    reply_of,
    resumed,
    unanswered,
)
from kubeyaml.eventing import DeliverySpec as Policy
from kubeyaml.eventing import Trigger

NEEDED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "a"}
TRACE, OTHER = f"00-{10:032x}-{11:016x}-01", f"00-{10:032x}-{12:016x}-01"
STORED = Stored("ns/default", Event(NEEDED, b"{}"), 255, [("traceparent", TRACE), ("tracestate", "x=1")])
TRIGGER = Trigger("ns/t", "ns/default", "http://sub/in", delivery=Policy(2, "exponential", 0.5))
WITH_SINK = Trigger("ns/t", "ns/default", "http://sub/in", delivery=Policy(2), dead_letter_sink="http://sink")
REQUEST = DeliveryRequest("http://sub/in", [], b"")


def judged(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Event | Failure | None:
    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return judge(REQUEST, status, raw, body)


def test_the_retry_table_is_knatives() -> None:
    """A delivery is retried after no answer, 404, 408, 409, 429 and any status from 500, and after no other status."""
    passing = {status for status in range(300, 600) if Failure("x", status).is_passing}
    assert passing == {404, 408, 409, 429, *range(500, 600)}
    assert unanswered("x", OSError("refused")).is_passing


@pytest.mark.parametrize("status", [200, 202, 204])
def test_an_empty_success_ends_the_delivery(status: int) -> None:
    """An empty success acknowledges the event without a reply."""
    assert judged(status) is None


def test_an_event_in_a_success_is_a_reply() -> None:
    """A success that contains an event, here in binary mode, is a reply."""
    reply = judged(200, {f"ce-{name}": value for name, value in NEEDED.items()}, b"1")
    assert reply == Event(NEEDED, b"1")


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        ({}, b"OK", b"the answer is neither empty nor an event: OK"),
        ({"content-type": "application/json"}, b"{}", b"neither empty nor an event"),
        ({"ce-specversion": "1.0"}, b"", b"the reply is malformed: ce-id is missing"),
    ],
)
def test_a_success_with_other_content_is_a_failure(headers: dict[str, str], body: bytes, reason: bytes) -> None:
    """A function that answers `OK` instead of an event is retried, as on a cluster."""
    failure = judged(200, headers, body)
    assert isinstance(failure, Failure)
    assert (failure.code, failure.is_passing) == (502, True)
    assert reason in failure.data


def test_an_answer_of_a_dead_letter_sink_is_not_a_reply() -> None:
    """Any content is accepted in a success of the dead-letter sink."""
    assert judge(DeliveryRequest("x", [], b"", may_reply=False), 200, [], b"thanks") is None


def test_failures_are_retried_with_growing_waits() -> None:
    """The policy sets the number of retries; after the last one a delivery without a sink is dead."""
    delivery, waits = Delivery(7, "ns/t"), []
    while not delivery.is_dead:
        delivery = after(Failure("http://sub/in", 503), delivery, TRIGGER, now=100.0)
        waits.append(delivery.due_at - 100.0)
    assert waits == [0.5, 1.0, 0.0]
    assert (delivery.attempts, delivery.failure) == (2, Failure("http://sub/in", 503))


def test_a_permanent_failure_is_not_retried() -> None:
    """The delivery is dead immediately."""
    dead = after(Failure("http://sub/in", 422, b"no"), Delivery(7, "ns/t"), TRIGGER, now=1.0)
    assert (dead.is_dead, dead.attempts) == (True, 0)


@pytest.mark.parametrize(
    ("status", "said", "wait_s"),
    [(503, "3", 3.0), (429, "2", 2.0), (500, "3", 0.5), (503, "0", 0.5), (503, "soon", 0.5), (503, "999", 60.0),
     (503, "Mon, 01 Jan 2024 00:00:00 +9999999999999", 0.5), (503, "99 Jan 2024", 0.5)],
)  # fmt: skip
def test_retry_after_is_respected(status: int, said: str, wait_s: float) -> None:
    """The Retry-After of 429 and 503 applies if it is longer than the back-off, up to one minute."""
    failure = judged(status, {"retry-after": said})
    assert isinstance(failure, Failure)
    assert after(failure, Delivery(7, "ns/t"), TRIGGER, now=0.0).due_at == wait_s


def test_retry_after_can_be_a_date() -> None:
    """A Retry-After date in the past means no wait."""
    for seconds, low, high in ((10, 8.0, 10.0), (-10, 0.0, 0.0)):
        date = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds), usegmt=True)
        failure = judged(503, {"retry-after": date})
        assert isinstance(failure, Failure)
        assert low <= failure.retry_after_s <= high


@pytest.mark.parametrize(
    ("attempts", "due_at", "resumed_at"),
    [(0, 0.0, 0.0), (1, 100.2, 100.2), (1, 160.0, 160.0), (1, 3700.0, 160.0), (10, 3700.0, 356.0), (10, 200.0, 200.0)],
)
def test_a_clock_set_back_does_not_delay_deliveries(attempts: int, due_at: float, resumed_at: float) -> None:
    """A delivery of an earlier process waits at most one minute or its back-off, even if it is due in an hour."""
    trigger = Trigger("ns/t", "ns/default", "http://sub/in", delivery=Policy(20, "exponential", 0.5))
    left = Delivery(7, "ns/t", attempts, due_at, Failure("http://sub/in", 503))
    expected = Delivery(7, "ns/t", attempts, resumed_at, left.failure)
    assert resumed(left, trigger, now=100.0) == expected


def test_the_destination_is_the_subscriber_or_the_sink() -> None:
    """The destination is the subscriber, or the sink, if there is one, after the subscriber has failed."""
    fresh, failed = Delivery(7, "ns/t"), Delivery(7, "ns/t", failure=Failure("http://sub/in", 400))
    for delivery, trigger in itertools.product((fresh, failed), (TRIGGER, WITH_SINK)):
        assert destination(delivery, trigger) == compose(STORED, delivery, trigger).url


def test_an_undeliverable_event_goes_to_the_sink() -> None:
    """After the last attempt the event goes to the dead-letter sink with its error, and is retried as often again."""
    bound = after(Failure("http://sub/in", 400, b"bad\n"), Delivery(7, "ns/t", attempts=1), WITH_SINK, now=5.0)
    assert (bound.is_dead, bound.attempts, bound.due_at) == (False, 0, 5.0)
    request = compose(STORED, bound, WITH_SINK)
    headers = dict(request.headers)
    assert (request.url, request.may_reply, "prefer" in headers) == ("http://sink", False, False)
    assert headers["ce-knativeerrordest"] == "http://sub/in"
    assert headers["ce-knativeerrorcode"] == "400"
    assert base64.b64decode(headers["ce-knativeerrordata"]) == b"bad\n"
    retried = after(Failure("http://sink", 503), bound, WITH_SINK, now=6.0)
    assert (retried.attempts, retried.failure) == (1, bound.failure)


def test_a_failed_sink_leaves_a_dead_letter() -> None:
    """The dead letter holds the subscriber's error and the sink's."""
    bound = Delivery(7, "ns/t", failure=Failure("http://sub/in", 400, b"bad"))
    dead = after(Failure("http://sink", 403), bound, WITH_SINK, now=5.0)
    assert dead.is_dead
    assert dead.failure == Failure("http://sub/in", 400, b"bad; the dead-letter sink http://sink answered 403")


def test_a_request_carries_the_trace_and_asks_for_a_reply() -> None:
    """The request is in binary mode unless the policy says otherwise, and continues the trace."""
    request = compose(STORED, Delivery(7, "ns/t"), TRIGGER)
    headers = dict(request.headers)
    assert (request.url, request.body, headers["prefer"]) == ("http://sub/in", b"{}", "reply")
    assert (headers["traceparent"], headers["kn-namespace"], headers["ce-id"]) == (TRACE, "ns", "1")
    as_document = Trigger("ns/t", "ns/default", "http://sub", delivery=Policy(structured=True))
    headers = dict(compose(STORED, Delivery(7, "ns/t"), as_document).headers)
    assert headers["content-type"].startswith("application/cloudevents+json")


@pytest.mark.parametrize(
    ("carried", "headers"),
    [
        ({}, [("traceparent", TRACE), ("tracestate", "x=1")]),
        ({"traceparent": OTHER}, [("traceparent", OTHER)]),
        ({"traceparent": OTHER, "tracestate": "y=2"}, [("traceparent", OTHER), ("tracestate", "y=2")]),
        ({"tracestate": "y=2"}, [("traceparent", TRACE), ("tracestate", "x=1")]),
    ],
)
def test_a_reply_continues_its_own_trace(carried: dict[str, Any], headers: list[tuple[str, str]]) -> None:
    """A reply is in the span that its extension names, else in that of its cause, with a TTL lower by one."""
    kept = reply_of(STORED, Event({**NEEDED, **carried}))
    assert (kept.headers, kept.ttl, kept.broker) == (headers, 254, "ns/default")


@pytest.mark.parametrize(
    ("name", "value", "is_one"),
    [
        ("traceparent", OTHER, True),
        ("traceparent", f"01{OTHER[2:]}-more", True),
        ("traceparent", f"{OTHER}-more", False),
        ("traceparent", f"ff{OTHER[2:]}", False),
        ("traceparent", f"00-{0:032x}-{1:016x}-01", False),
        ("traceparent", f"00-{1:032x}-{0:016x}-01", False),
        ("traceparent", OTHER.upper(), False),
        ("traceparent", "00-€", False),
        ("traceparent", 7, False),
        ("tracestate", "a=1,t@v=b c;d , ,", True),
        ("tracestate", ",".join(["a=1"] * 32), True),
        ("tracestate", ",".join(["a=1"] * 33), False),
        ("tracestate", "a", False),
        ("tracestate", "A=1", False),
        ("tracestate", "a=b=c", False),
        ("tracestate", "a=€", False),
        ("tracestate", " ," * 30 + " " * 50_000 + "!", False),
    ],
)
def test_an_invalid_trace_attribute_is_not_a_header(name: str, value: str | int, is_one: bool) -> None:  # noqa: FBT001
    """An attribute may hold any text, but only a value in W3C's syntax becomes a header."""
    found = in_trace_of(Event({**NEEDED, "traceparent": OTHER, name: value}), [("traceparent", TRACE)])
    assert ((name, str(value)) in found) is is_one
    assert (("traceparent", TRACE) in found) is (name == "traceparent" and not is_one)
