import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from chassis.call import Call, Handler, Reply
from chassis.environment import Reader
from chassis.server.caller_watch import ClientDisconnectedError
from chassis.server.service import Service
from chassis.server.settings import ServingSettings
from chassis.wire.problems import DependencyError, OverloadedError
from tests.virtual_time import on_virtual_time

SETTINGS = ServingSettings.read(Reader({"K_REVISION": "echo-00001", "AUTH": "off"}), name="echo", max_body_bytes=1024)


async def echo(call: Call) -> Reply:
    call.receipt.mark("echo")
    return Reply(call.body)


def make_service(handler: Handler = echo, *, events: list[str] | None = None) -> Service:
    log = events if events is not None else []

    @asynccontextmanager
    async def open_handler() -> AsyncIterator[Handler]:
        log.append("opened")
        yield handler
        log.append("closed")

    return Service("echo", open_handler, settings=SETTINGS)


def scope(method: str = "POST", path: str = "/", **headers: str) -> dict[str, object]:
    pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": path, "headers": pairs}


def receive_of(*parts: bytes, gone: bool = False):
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts[:-1]]
    if gone:
        messages.append({"type": "http.disconnect"})
    else:
        messages.append({"type": "http.request", "body": parts[-1] if parts else b"", "more_body": False})

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    return receive


def header(reply: Reply, name: bytes) -> str:
    return next((value.decode() for key, value in reply.headers if key == name), "")


async def test_a_request_reaches_the_handler():
    """The handler answers a POST to `/`, and the reply carries a receipt and a request id."""
    reply = await make_service().answer(scope(x_request_id="abc"), receive_of(b'{"a"', b":1}"))
    assert (reply.status, reply.body, reply.content_type) == (200, b'{"a":1}', b"application/json")
    assert header(reply, b"x-request-id") == "abc"
    assert "echo;dur=" in header(reply, b"server-timing")
    assert 'rev;desc="echo-00001"' in header(reply, b"server-timing")


@pytest.mark.parametrize("given", [None, "", "with space", "x" * 129, "caf\xe9"])
async def test_an_unusable_request_id_is_replaced(given):
    """The service replaces a missing or unusable request id and never echoes it."""
    headers = {} if given is None else {"x_request_id": given}
    reply = await make_service().answer(scope(**headers), receive_of(b"{}"))
    assert len(header(reply, b"x-request-id")) == 16


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/", 405, "POST"),
        ("PUT", "/", 405, "POST"),
        ("POST", "/readyz", 405, "GET, HEAD"),
        ("GET", "/other", 404, ""),
        ("POST", "/other", 404, ""),
    ],
)
async def test_unknown_paths_and_methods_are_problems(method, path, status, allow):
    """The service answers an unknown path with 404 and an unknown method with 405, which names the allowed methods."""
    reply = await make_service().answer(scope(method, path), receive_of(b"{}"))
    assert (reply.status, reply.content_type) == (status, b"application/problem+json")
    assert header(reply, b"allow") == allow
    assert json.loads(reply.body).get("detail") == {"POST": "send POST", "GET, HEAD": "send GET or HEAD"}.get(allow)


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"', "application/x-www-form-urlencoded", "", "application/vnd.shop.v1+json", "application/cloudevents+json; charset=UTF-8; x=1", "application/json; charset=utf-8;"]
)  # fmt: skip
async def test_json_is_accepted_under_several_content_types(content_type):
    """The service accepts JSON under its own content type, under none, and under the type that `curl -d` sends."""
    reply = await make_service().answer(scope(content_type=content_type), receive_of(b"{}"))
    assert reply.status == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/xml",
        "application/json; charset=latin-1",
        "application/json; x=1; charset=latin-1",
        "x",
    ],
)
async def test_other_media_types_are_refused(content_type):
    """The service refuses a body whose content type is not JSON."""
    reply = await make_service().answer(scope(content_type=content_type), receive_of(b"{}"))
    assert reply.status == 415


@pytest.mark.parametrize("parts", [[b"x" * 1025], [b"x" * 600, b"x" * 600]])
async def test_a_body_over_the_limit_is_refused(parts):
    """The service refuses a body as soon as it exceeds the limit."""
    assert (await make_service().answer(scope(), receive_of(*parts))).status == 413


async def test_a_body_announced_over_the_limit_is_not_read():
    """The service refuses a content length over the limit without reading the body."""

    async def receive() -> dict[str, object]:
        raise AssertionError("must not be read")

    assert (await make_service().answer(scope(content_length="1025"), receive)).status == 413


async def test_a_disconnect_during_the_upload_gets_no_answer():
    """The service sends no answer when the connection closes before the body is complete."""
    service = make_service()
    with pytest.raises(ClientDisconnectedError):
        await service.answer(scope(), receive_of(b"{", gone=True))
    assert service.load.in_flight == 0
    assert service.arriving(within_s=60) == 0


async def stalled() -> dict[str, object]:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("begun", [False, True], ids=["nothing came", "a part came"])
async def test_an_incomplete_body_times_out(begun):
    """If the budget ends during the upload, the service answers 504 and closes the connection."""
    service = make_service()
    parts = [{"type": "http.request", "body": b"{", "more_body": True}] if begun else []

    async def receive() -> dict[str, object]:
        return parts.pop() if parts else await stalled()

    reply = await service.answer(scope(x_request_timeout_ms="20"), receive)
    assert (reply.status, header(reply, b"connection")) == (504, "close")
    assert (service.load.in_flight, service.arriving(within_s=60)) == (0, 0)


@on_virtual_time
async def test_only_recent_uploads_count_as_arriving(clock):
    """A body whose upload has lasted longer than the caller's limit is not counted as arriving."""
    service = make_service()
    readers = [asyncio.create_task(service.answer(scope(), stalled)) for _ in range(2)]
    await clock.advance(0.05)
    assert (service.arriving(within_s=60), service.arriving(within_s=0.04)) == (2, 0)
    readers.append(asyncio.create_task(service.answer(scope(), stalled)))
    await asyncio.sleep(0)
    assert service.arriving(within_s=0.04) == 1
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    assert service.arriving(within_s=60) == 0


async def test_a_complete_body_is_not_read_again():
    """A caller that passes the complete body gets an answer without a read, under the same size limit."""
    service = make_service()
    assert (await service.answer(scope(), stalled, b"{}")).body == b"{}"
    assert (await service.answer(scope(), stalled, b"")).status == 200
    assert (await service.answer(scope(), stalled, b"x" * 1025)).status == 413


async def test_a_serving_error_keeps_its_status_and_headers():
    """A shed request gets 503 and a Retry-After header."""

    async def shed(call: Call) -> Reply:
        raise OverloadedError(retry_after_s=2.4)

    reply = await make_service(shed).answer(scope(), receive_of(b"{}"))
    assert reply.status == 503
    assert header(reply, b"retry-after") == "2"
    assert json.loads(reply.body)["code"] == "overloaded"


async def test_a_crash_reveals_no_internals(caplog):
    """An unexpected error is a 500 without the error's text, and is logged once with its traceback."""

    async def crash(call: Call) -> Reply:
        raise ValueError("secret path /etc/passwd")

    reply = await make_service(crash).answer(scope(), receive_of(b"{}"))
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert [record.message for record in caplog.records] == ["request_crashed"]


async def test_the_log_states_the_cause_and_the_answer_does_not(caplog):
    """The log of a failed request states why a dependency failed; the answer names no file."""

    async def fail(call: Call) -> Reply:
        raise DependencyError("the store does not answer") from OSError("store.db: the file was removed; restart")

    reply = await make_service(fail).answer(scope(), receive_of(b"{}"))
    (record,) = [record for record in caplog.records if record.msg == "request_failed"]
    assert record.__dict__["cause"] == "store.db: the file was removed; restart"
    assert (reply.status, b"store.db" in reply.body) == (503, False)


@pytest.mark.parametrize(
    ("asked", "budget_s"),
    [(None, 1.0), ("250", 0.25), ("999999", 10.0), ("nan", 1.0), ("-5", 1.0), ("soon", 1.0), ("inf", 10.0)],
)
@on_virtual_time
async def test_the_budget_comes_from_the_request(asked, budget_s, clock):
    """The service caps the caller's budget, and uses the default when the header is unusable."""
    left = []

    async def note(call: Call) -> Reply:
        left.append(call.deadline.left_s())
        return Reply(b"")

    await make_service(note).answer(
        scope(**({} if asked is None else {"x_request_timeout_ms": asked})), receive_of(b"{}")
    )
    assert left[0] == pytest.approx(budget_s, abs=0.01)


async def test_a_handler_over_the_budget_is_cancelled():
    """The service cancels the handler when the budget is spent, and answers 504."""
    cancelled = asyncio.Event()

    async def hang(call: Call) -> Reply:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    reply = await make_service(hang).answer(scope(x_request_timeout_ms="200"), receive_of(b"{}"))
    assert reply.status == 504
    assert cancelled.is_set()


async def test_a_spent_budget_skips_the_handler():
    """The handler does not run for a request whose budget is spent on arrival."""

    async def never(call: Call) -> Reply:
        raise AssertionError

    assert (await make_service(never).answer(scope(x_request_timeout_ms="0"), receive_of(b"{}"))).status == 504


async def test_a_service_starts_drains_and_stops():
    """A service opens its parts once, becomes ready, drains, and closes them."""
    events: list[str] = []
    service = make_service(events=events)
    assert service.state == "new"
    await asyncio.gather(service.start(), service.start())
    assert (await service.answer(scope("GET", "/readyz"), receive_of())).status == 200
    service.drain()
    reply = await service.answer(scope("GET", "/readyz"), receive_of())
    assert (reply.status, header(reply, b"retry-after")) == (503, "1")
    assert (await service.answer(scope("HEAD", "/livez"), receive_of())).status == 200
    assert (await service.answer(scope(), receive_of(b"{}"))).status == 200
    await service.stop()
    assert (await service.answer(scope(), receive_of(b"{}"))).status == 503
    assert events == ["opened", "closed"]


def slow_service(opening: asyncio.Event, *, fails: bool = False) -> Service:
    @asynccontextmanager
    async def slowly() -> AsyncIterator[Handler]:
        await opening.wait()
        if fails:
            raise OSError("no such model")
        yield echo

    return Service("slow", slowly, settings=SETTINGS)


async def test_a_service_is_not_ready_while_it_starts():
    """While its parts are being opened, the service answers probes and requests with 503."""
    opening = asyncio.Event()
    service = slow_service(opening)
    starting = asyncio.create_task(service.start())
    await asyncio.sleep(0)
    assert (await service.answer(scope("GET", "/readyz"), receive_of())).status == 503
    assert (await service.answer(scope(), receive_of(b"{}"))).status == 503
    opening.set()
    await starting
    assert (await service.answer(scope(), receive_of(b"{}"))).status == 200


@pytest.mark.parametrize("fails", [False, True])
async def test_an_instance_told_to_drain_while_it_starts_stays_draining(fails):
    """The service stays not ready, whether its start succeeds or fails, so that it receives no new traffic."""
    opening = asyncio.Event()
    service = slow_service(opening, fails=fails)
    starting = asyncio.create_task(service.start())
    await asyncio.sleep(0)
    service.drain()
    opening.set()
    await asyncio.gather(starting, return_exceptions=True)
    assert service.state == "draining"
    assert (await service.answer(scope("GET", "/readyz"), receive_of())).status == 503
    assert (await service.answer(scope(), receive_of(b"{}"))).status == (503 if fails else 200)


async def test_a_failed_start_is_retried(caplog):
    """A request to a service that cannot start gets 503, and the next request tries the start again."""
    attempts: list[int] = []

    @asynccontextmanager
    async def second_time_lucky() -> AsyncIterator[Handler]:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError("no such model")
        yield echo

    service = Service("flaky", second_time_lucky, settings=SETTINGS)
    assert (await service.answer(scope(), receive_of(b"{}"))).status == 503
    assert (await service.answer(scope(), receive_of(b"{}"))).status == 200
    assert [record.message for record in caplog.records] == ["start_failed"]
