"""The context that is passed on: valid, within W3C's limits, one header of each kind."""

import pytest

from chassis.telemetry.tracing import PassOn, begin_shared, forwarded_context, read_parent, unsampled_context

PARENT = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


def baggage(*lines: bytes) -> bytes:
    return dict(forwarded_context([(b"baggage", line) for line in lines])).get(b"baggage", b"")


def tracestate(*lines: bytes) -> bytes:
    return dict(forwarded_context([PARENT, *((b"tracestate", line) for line in lines)])).get(b"tracestate", b"")


def test_several_lines_become_one():
    """A hundred lines are one header, so that the next function does not count a hundred headers."""
    assert baggage(b"a=1 , b=2", b"c=3;p") == b"a=1,b=2,c=3;p"
    assert tracestate(b"a=1", b"", b" b=2") == b"a=1,b=2"


def test_baggage_is_limited():
    """64 members and 8192 bytes are passed on; further members are dropped whole."""
    members = [b"k%d=v" % number for number in range(97)]
    assert baggage(*members) == b",".join(members[:64])
    longest = b"a=" + b"1" * 8190
    assert baggage(longest) == longest
    assert baggage(longest + b"1") == b""
    assert baggage(b"a=1", longest, b"b=2") == b"a=1"


def test_tracestate_is_limited():
    """32 members and 512 characters are passed on; further members are dropped whole."""
    members = [b"k%d=v" % number for number in range(40)]
    assert tracestate(*members) == b",".join(members[:32])
    assert tracestate(b"a=" + b"1" * 510) == b"a=" + b"1" * 510
    assert tracestate(b"a=" + b"1" * 511) == b""


def test_members_that_no_header_may_hold_are_dropped():
    """Control characters and bytes beyond ASCII are not passed on."""
    assert baggage(b"a=1,b=\xff,c=\x01,d=\r\nx: y,e=2") == b"a=1,e=2"


@pytest.mark.parametrize(
    "parents", [[b"00-abc"], [b"1" * 60_000], [PARENT[1], PARENT[1]]], ids=["short", "long", "two"]
)
def test_an_invalid_parent_is_dropped_with_its_state(parents):
    """Without exactly one valid traceparent neither it nor the tracestate is passed on; baggage is."""
    headers = [*((b"traceparent", parent) for parent in parents), (b"tracestate", b"a=1"), (b"baggage", b"b=2")]
    assert forwarded_context(headers) == [(b"baggage", b"b=2")]
    assert read_parent(headers) is None


def test_an_unsampled_event_stays_unsampled():
    """The parent that an event brings in its extension is passed on as a header."""
    unsampled = PARENT[1][:-1] + b"0"
    assert PassOn(unsampled_context([(b"ce-traceparent", unsampled)])).context() == [(b"traceparent", unsampled)]


def test_work_for_several_callers_carries_the_context_of_none():
    """Work for several unrecorded callers has a new, unsampled trace if any of them brought a context."""
    assert begin_shared("x", [PassOn(()), PassOn([(b"cookie", b"c")])]).context() == []
    spans = [PassOn([PARENT, (b"baggage", b"b=2")]), PassOn(())]
    ((name, value),) = begin_shared("x", spans).context()
    assert name == b"traceparent"
    assert PARENT[1][3:35] not in value
    assert value.endswith(b"-00")
