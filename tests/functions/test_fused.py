import asyncio

import msgspec
import pytest

from chassis.call import Call, Deadline, Handler, Reply
from chassis.hop.client import HopAnswer
from chassis.receipt import Receipt
from chassis.wire.problems import (
    DeadlineExceededError,
    DependencyError,
    InvalidRequestError,
    OverloadedError,
    ServingError,
)
from fused.hop import FusedHop


async def send(handler: Handler, *, seconds: float = 100.0) -> HopAnswer[object]:
    headers = [(b"content-type", b"application/cloudevents+json"), (b"authorization", b"Bearer caller")]
    call = Call(b"", headers, "id", Receipt(0.0), Deadline.after(seconds))
    return await FusedHop("hop", handler).send(b"[1]", call=call, within_s=50, decode=msgspec.json.decode)


async def test_the_handler_gets_the_same_call_as_over_http():
    """
    The handler gets the body, the request id and the smaller budget, but not the caller's headers; the caller gets the
    value and the receipt.
    """

    async def echo(call: Call) -> Reply:
        assert list(call.headers) == [(b"content-type", b"application/json")]
        assert call.request_id == "id"
        assert 40 < call.deadline.left_s() <= 50
        call.receipt.spend("model", 0.25)
        return Reply(call.body)

    answer = await send(echo)
    assert answer.value == [1]
    assert answer.durations["model"] == 0.25
    assert answer.facts["rev"] == "hop"


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (InvalidRequestError(), DependencyError),
        (ServingError(), DependencyError),
        (RuntimeError("a bug"), DependencyError),
        (OverloadedError(), OverloadedError),
        (DeadlineExceededError(), DeadlineExceededError),
        (TimeoutError(), DeadlineExceededError),
    ],
    ids=str,
)
async def test_failures_are_translated_as_over_http(raised, seen):
    """A refusal and a crash become a failed dependency, and a timeout a spent deadline."""

    async def fail(call: Call) -> Reply:
        raise raised

    with pytest.raises(seen):
        await send(fail)


async def test_a_handler_is_cancelled_at_its_deadline():
    """A handler that hangs is cancelled when its budget is spent, and is not called without a budget."""

    async def hang(call: Call) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(DeadlineExceededError):
        await send(hang, seconds=0.01)
    with pytest.raises(DeadlineExceededError):
        await send(hang, seconds=-1)


async def test_an_unreadable_answer_is_a_failed_dependency():
    """An answer that cannot be decoded raises DependencyError."""

    async def garble(call: Call) -> Reply:
        return Reply(b"<html>")

    with pytest.raises(DependencyError, match="unreadable"):
        await send(garble)
