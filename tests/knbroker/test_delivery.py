"""What becomes of a delivery: Knative's retry table, its back-off, replies and dead letters, as pure decisions."""

import base64
import datetime as dt
import itertools
from email.utils import format_datetime
from typing import Any

import pytest

from chassis.wire.cloudevents import Event
from knbroker.delivery import (
    Delivery,
    Failure,
    Request,
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
from kubeyaml.eventing import Delivery as Policy
from kubeyaml.eventing import Trigger

NEEDED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "a"}
TRACE, OTHER = f"00-{10:032x}-{11:016x}-01", f"00-{10:032x}-{12:016x}-01"
STORED = Stored("ns/default", Event(NEEDED, b"{}"), 255, [("traceparent", TRACE), ("tracestate", "x=1")])
TRIGGER = Trigger("ns/t", "ns/default", "http://sub/in", delivery=Policy(2, "exponential", 0.5))
WITH_SINK = Trigger("ns/t", "ns/default", "http://sub/in", delivery=Policy(2), dead_letter_sink="http://sink")
REQUEST = Request("http://sub/in", [], b"")


def judged(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Event | Failure | None:
    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return judge(REQUEST, status, raw, body)


def test_the_retry_table() -> None:
    """Repeated: no answer, 404, 408, 409, 429 and everything from 500; nothing else, redirections neither."""
    passing = {status for status in range(300, 600) if Failure("x", status).is_passing}
    assert passing == {404, 408, 409, 429, *range(500, 600)}
    assert unanswered("x", OSError("refused")).is_passing


@pytest.mark.parametrize("status", [200, 202, 204])
def test_an_empty_success_is_an_end(status: int) -> None:
    """Acknowledged, without a reply."""
    assert judged(status) is None


def test_an_event_in_a_success_is_a_reply() -> None:
    """In binary mode here."""
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
def test_other_text_in_a_success_is_a_failure(headers: dict[str, str], body: bytes, reason: bytes) -> None:
    """As on a cluster, where it is repeated: the well-known trap of functions that answer OK."""
    failure = judged(200, headers, body)
    assert isinstance(failure, Failure)
    assert (failure.code, failure.is_passing) == (502, True)
    assert reason in failure.data


def test_a_dead_letter_sink_does_not_reply() -> None:
    """Whatever it says in a success."""
    assert judge(Request("x", [], b"", may_reply=False), 200, [], b"thanks") is None


def test_failures_are_repeated_after_growing_waits() -> None:
    """As often as the policy says; then the delivery is dead where there is no sink."""
    delivery, waits = Delivery(7, "ns/t"), []
    while not delivery.is_dead:
        delivery = after(Failure("http://sub/in", 503), delivery, TRIGGER, now=100.0)
        waits.append(delivery.due_at - 100.0)
    assert waits == [0.5, 1.0, 0.0]
    assert (delivery.attempts, delivery.failure) == (2, Failure("http://sub/in", 503))


def test_what_will_never_work_is_dead_at_once() -> None:
    """Not one retry."""
    dead = after(Failure("http://sub/in", 422, b"no"), Delivery(7, "ns/t"), TRIGGER, now=1.0)
    assert (dead.is_dead, dead.attempts) == (True, 0)


@pytest.mark.parametrize(
    ("status", "said", "wait_s"),
    [(503, "3", 3.0), (429, "2", 2.0), (500, "3", 0.5), (503, "0", 0.5), (503, "soon", 0.5), (503, "999", 60.0),
     (503, "Mon, 01 Jan 2024 00:00:00 +9999999999999", 0.5), (503, "99 Jan 2024", 0.5)],
)  # fmt: skip
def test_who_says_when_to_come_back_is_heard(status: int, said: str, wait_s: float) -> None:
    """Retry-After of 429 and 503, where it is longer than the back-off, up to a minute."""
    failure = judged(status, {"retry-after": said})
    assert isinstance(failure, Failure)
    assert after(failure, Delivery(7, "ns/t"), TRIGGER, now=0.0).due_at == wait_s


def test_a_date_to_come_back_is_heard() -> None:
    """Retry-After may be a date; one of the past means now."""
    for seconds, low, high in ((10, 8.0, 10.0), (-10, 0.0, 0.0)):
        date = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds), usegmt=True)
        failure = judged(503, {"retry-after": date})
        assert isinstance(failure, Failure)
        assert low <= failure.retry_after_s <= high


@pytest.mark.parametrize(
    ("attempts", "due_at", "resumed_at"),
    [(0, 0.0, 0.0), (1, 100.2, 100.2), (1, 160.0, 160.0), (1, 3700.0, 160.0), (10, 3700.0, 356.0), (10, 200.0, 200.0)],
)
def test_a_clock_that_was_set_back_holds_nothing_up(attempts: int, due_at: float, resumed_at: float) -> None:
    """What an earlier process left waits a minute, as a subscriber may ask for, or its back-off, and not an hour."""
    trigger = Trigger("ns/t", "ns/default", "http://sub/in", delivery=Policy(20, "exponential", 0.5))
    left = Delivery(7, "ns/t", attempts, due_at, Failure("http://sub/in", 503))
    expected = Delivery(7, "ns/t", attempts, resumed_at, left.failure)
    assert resumed(left, trigger, now=100.0) == expected


def test_whose_turn_it_is() -> None:
    """The subscriber's, until it has failed and there is a sink; what cannot be composed is a failure of that one."""
    fresh, failed = Delivery(7, "ns/t"), Delivery(7, "ns/t", failure=Failure("http://sub/in", 400))
    for delivery, trigger in itertools.product((fresh, failed), (TRIGGER, WITH_SINK)):
        assert destination(delivery, trigger) == compose(STORED, delivery, trigger).url


def test_the_sink_gets_what_could_not_be_delivered() -> None:
    """After the last attempt the event goes to the dead-letter sink, with what went wrong, and is tried as often."""
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


def test_a_sink_that_fails_leaves_a_dead_letter() -> None:
    """Which says both: why the subscriber, and that the sink did not take it."""
    bound = Delivery(7, "ns/t", failure=Failure("http://sub/in", 400, b"bad"))
    dead = after(Failure("http://sink", 403), bound, WITH_SINK, now=5.0)
    assert dead.is_dead
    assert dead.failure == Failure("http://sub/in", 400, b"bad; the dead-letter sink http://sink answered 403")


def test_a_request_asks_for_a_reply_and_carries_what_it_came_with() -> None:
    """Binary mode unless the policy says otherwise; the trace goes on."""
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
def test_a_reply_goes_on_in_its_own_trace(carried: dict[str, Any], headers: list[tuple[str, str]]) -> None:
    """In the span its extension names, else in that of the event that caused it; one hop nearer to its end."""
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
def test_what_is_no_trace_context_is_no_header(name: str, value: str | int, is_one: bool) -> None:  # noqa: FBT001
    """W3C's syntax decides: an attribute may hold any text, a header may not."""
    found = in_trace_of(Event({**NEEDED, "traceparent": OTHER, name: value}), [("traceparent", TRACE)])
    assert ((name, str(value)) in found) is is_one
    assert (("traceparent", TRACE) in found) is (name == "traceparent" and not is_one)
