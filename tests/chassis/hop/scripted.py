"""A client whose hop follows a script."""

import asyncio
import json

import httpx

from chassis.call import Call, Deadline
from chassis.hop.client import HopAnswer, HopClient
from chassis.hop.retries import RetryPolicy
from chassis.receipt import Receipt
from chassis.telemetry.tracing import PassOn
from chassis.wire.headers import RawHeaders


class Scripted(httpx.AsyncBaseTransport):
    """Answer with the scripted steps in order and repeat the last one."""

    def __init__(self, *script: object) -> None:
        self._script = list(script)
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        await asyncio.sleep(0)
        if isinstance(step, Exception):
            raise step
        if isinstance(step, int):
            return httpx.Response(step, json={"n": len(self.requests)})
        if isinstance(step, httpx.Response):
            return step
        assert callable(step)
        response = await step(request)
        assert isinstance(response, httpx.Response)
        return response


def client(transport: httpx.AsyncBaseTransport, **more: object) -> HopClient:
    more.setdefault("policy", RetryPolicy(base_s=0.0001))
    return HopClient("hop", "http://hop.test/", transport=transport, **more)  # type: ignore[arg-type]


def make_call(headers: RawHeaders = (), seconds: float = 1.0) -> Call:
    return Call(b"", headers, "request-1", Receipt(0.0), Deadline.after(seconds), PassOn(headers))


async def send(hop: HopClient, call: Call | None = None, within_s: float = 1.0) -> HopAnswer[object]:
    return await hop.send(b"{}", call=call or make_call(), within_s=within_s, decode=decode)


def decode(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError as error:
        raise UnicodeDecodeError("utf-8", body, 0, 1, "garbage") from error
