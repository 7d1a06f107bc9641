"""The calls that `recsys.client` tries again, and those that it does not."""

import time
from collections.abc import Callable, Sequence

import httpx
import pytest

from recsys.client import AsyncClient, Client, NoAnswerError, OtherServerError, ProblemError
from tests.virtual_time import on_virtual_time

ANSWER = {"user_id": "ann", "recommendations": [{"item_id": "a", "score": 1.0}]}
BUSY = {"status": 503, "code": "overloaded", "title": "busy"}
Outcome = httpx.Response | Exception


def bad_gateway() -> httpx.Response:
    """Return the answer of queue-proxy in front of a process that crashed."""
    return httpx.Response(502, text="EOF")


def good() -> httpx.Response:
    return httpx.Response(200, json=ANSWER)


def starting() -> httpx.Response:
    """Return the answer of a process that starts again before the gateway has noticed that it died."""
    problem = {"status": 503, "code": "not-ready", "title": "This instance takes no requests now"}
    return httpx.Response(503, json=problem, headers={"retry-after": "9"})


def busy() -> httpx.Response:
    return httpx.Response(503, json=BUSY, headers={"retry-after": "1"})


class Script:
    """A transport that gives one outcome after the other, and the last one for ever; records the requests."""

    def __init__(self, *outcomes: Callable[[], Outcome]) -> None:
        self._outcomes = list(outcomes)
        self.sent: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        outcome = (self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0])()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def client(self) -> AsyncClient:
        return AsyncClient("http://pipeline", events_url="http://broker", transport=httpx.MockTransport(self))


@on_virtual_time
@pytest.mark.parametrize(
    "failures",
    [
        [bad_gateway],
        [bad_gateway] * 9,
        [starting] * 5,
        [lambda: httpx.ReadError("reset")],
        [lambda: httpx.ConnectError("refused")],
        [lambda: httpx.RemoteProtocolError("disconnected"), busy],
    ],
    ids=["502", "nine times 502", "starting", "reset", "refused", "disconnected, busy"],
)
async def test_a_crashed_instance_is_hidden_by_another_attempt(failures: Sequence[Callable[[], Outcome]]):
    """The caller gets the answer of the instance that works."""
    script = Script(*failures, good)
    async with script.client() as client:
        assert (await client.recommend("ann")).recommendations[0].item_id == "a"
    assert len(script.sent) == len(failures) + 1


@on_virtual_time
async def test_all_attempts_share_the_time_budget(clock):
    """Each attempt tells the pipeline the time that is left, and none begins after the end."""
    script = Script(busy)
    began = clock.now()
    async with script.client() as client:
        with pytest.raises(ProblemError) as caught:
            await client.recommend("ann", timeout_s=2.5)
    assert [int(each.headers["x-request-timeout-ms"]) for each in script.sent] == [2500, 1500, 500]
    assert (caught.value.retryable, caught.value.retry_after_s) == (True, 1)
    assert clock.now() - began < 2.5


@on_virtual_time
@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (lambda: httpx.Response(422, json={"status": 422, "code": "invalid-request", "title": "no"}), ProblemError),
        (lambda: httpx.Response(504, json={"status": 504, "code": "deadline", "title": "late"}), ProblemError),
        (lambda: httpx.Response(200, text="hello"), OtherServerError),
        (lambda: httpx.ReadTimeout("late"), NoAnswerError),
    ],
    ids=["fault of the request", "deadline", "other server", "timeout"],
)
async def test_a_call_that_would_fail_again_is_made_once(outcome, error):
    """A fault of the caller, a spent budget and another server's answer are not tried again."""
    script = Script(outcome)
    async with script.client() as client:
        with pytest.raises(error):
            await client.recommend("ann")
    assert len(script.sent) == 1


@on_virtual_time
async def test_retries_are_limited_to_a_tenth_of_the_calls():
    """In an outage, the client sends 500 retries from its reserve, and then one for ten calls."""
    script = Script(bad_gateway)
    async with script.client() as client:
        for _ in range(100):
            with pytest.raises(OtherServerError):
                await client.recommend("ann")
    # A tenth of a retry is not exact in binary, so a retry may wait for the next call.
    assert 508 <= len(script.sent) - 100 <= 510


@on_virtual_time
async def test_an_event_keeps_its_id_when_it_is_sent_again():
    """The subscribers recognise the second copy, and count the event once."""
    script = Script(bad_gateway, lambda: httpx.Response(202))
    async with script.client() as client:
        await client.send_interaction("ann", "view", "a")
    first, second = script.sent
    assert first.headers["ce-id"] == second.headers["ce-id"]


@pytest.mark.may_block
def test_the_blocking_client_follows_the_same_rules(monkeypatch):
    """The client sleeps between the attempts, and returns the answer of the last one."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    script = Script(bad_gateway, bad_gateway, good)
    with Client("http://pipeline", transport=httpx.MockTransport(script)) as client:
        assert client.recommend("ann").user_id == "ann"
    assert (len(script.sent), len(slept)) == (3, 2)
    assert all(0 <= pause < 0.2 for pause in slept)
