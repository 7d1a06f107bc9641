"""
One hop: a call from one function to another, inside the caller's time budget.

httpx is the interface and its transport API the seam: tests and users plug in their own. Requests go straight to the
transport, because httpx's client layer costs more than the whole exchange (docs/adr/0004-hop-client.md).
"""

from dataclasses import dataclass

import httpx

from recsys.contracts.problems import DeadlineExceededError, DependencyError
from recsys.serving.call import JSON, Call
from recsys.serving.receipt import HEADER, parse_receipt
from recsys.serving.service import REQUEST_ID_HEADER, TIMEOUT_HEADER

_PASSED_ON = (b"traceparent", b"tracestate", b"baggage")


@dataclass(frozen=True)
class HopAnswer:
    """
    What a hop answered.

    Attributes:
        body: The answer's JSON.
        spent_s: How long the call took, seen from here.
        durations: Seconds by phase, from the hop's own receipt.
        facts: The receipt's other entries, `rev` among them.
    """

    body: bytes
    spent_s: float
    durations: dict[str, float]
    facts: dict[str, str]


class HopClient:
    """
    Calls one function.

    Args:
        name: Of the hop, for messages.
        url: Where the function answers.
        transport: Carries the requests; closed by whoever made it.
    """

    def __init__(self, name: str, url: str, *, transport: httpx.AsyncBaseTransport) -> None:
        self._name = name
        self._url = httpx.URL(url)
        self._host = (b"host", self._url.netloc)
        self._transport = transport

    async def send(self, body: bytes, *, call: Call) -> HopAnswer:
        """
        Post *body* on behalf of *call*.

        Raises:
            DeadlineExceededError: the budget of *call* is spent.
            DependencyError: no answer, or one that is no success.
        """
        left_s = call.deadline.left_s()
        if left_s <= 0:
            raise DeadlineExceededError
        began_s = call.receipt.elapsed_s()
        request = httpx.Request(
            "POST",
            self._url,
            headers=self._headers(call, left_s),
            content=body,
            extensions={"timeout": {"connect": left_s, "read": left_s, "pool": left_s}},
        )
        try:
            response = await self._transport.handle_async_request(request)
        except httpx.TimeoutException as error:
            raise DeadlineExceededError(f"{self._name} did not answer in time") from error
        except httpx.TransportError as error:
            raise DependencyError(f"{self._name} cannot be reached", retry_after_s=1.0) from error
        if response.status_code != httpx.codes.OK:
            raise DependencyError(f"{self._name} answered {response.status_code}", retry_after_s=1.0)
        durations, facts = parse_receipt(response.headers.get(HEADER.decode(), ""))
        return HopAnswer(response.content, call.receipt.elapsed_s() - began_s, durations, facts)

    def _headers(self, call: Call, left_s: float) -> list[tuple[bytes, bytes]]:
        headers = [
            self._host,
            (b"content-type", JSON),
            (REQUEST_ID_HEADER, call.request_id.encode("latin-1")),
            (TIMEOUT_HEADER, b"%d" % max(1, int(left_s * 1000))),
        ]
        headers += [(name, value) for name, value in call.headers if name in _PASSED_ON]
        return headers
