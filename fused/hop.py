"""A hop without HTTP: it calls the handler of the other function, which runs in the same process."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from chassis.call import JSON, Call, Deadline, Handler
from chassis.hop.client import HopAnswer
from chassis.receipt import Receipt
from chassis.wire.json_text import NOT_DECODED
from chassis.wire.problems import DeadlineExceededError, DependencyError, ServingError, Unavailable

T = TypeVar("T")

log = logging.getLogger("chassis")

# The caller's headers stay behind, as over HTTP: those of an event would make the handler look for an event.
_HEADERS = ((b"content-type", JSON),)


class FusedHop:
    """
    Calls *handler* with the same bytes, budgets and errors as `HopClient` would call its function over HTTP.

    An error of the handler after which a retry may succeed keeps its own kind.

    Args:
        name: The name of the function, for messages.
        handler: The handler of the function.
    """

    def __init__(self, name: str, handler: Handler) -> None:
        self._name = name
        self._handler = handler

    async def send(self, body: bytes, *, call: Call, within_s: float, decode: Callable[[bytes], T]) -> HopAnswer[T]:
        """Pass *body* to the handler on behalf of *call*; see `Hop`."""
        began = time.monotonic()
        deadline = Deadline(min(call.deadline.at, began + within_s))
        deadline.check()
        receipt = Receipt(began)
        try:
            async with asyncio.timeout(deadline.left_s()):
                reply = await self._handler(Call(body, _HEADERS, call.request_id, receipt, deadline, call.span))
            value = decode(reply.body)
        except TimeoutError as error:
            raise DeadlineExceededError(f"{self._name} did not answer in time") from error
        except Unavailable:
            raise
        except ServingError as error:
            raise self._failed(f"answered {error.status}") from error
        except NOT_DECODED as error:
            raise self._failed("answered something unreadable") from error
        except Exception as error:
            log.exception("request_crashed", extra={"request_id": call.request_id})
            raise self._failed(f"answered {ServingError.status}") from error
        receipt.close(revision=self._name)
        return HopAnswer(value, time.monotonic() - began, receipt.durations, receipt.facts)

    def _failed(self, how: str) -> DependencyError:
        return DependencyError(f"{self._name} {how}", retry_after_s=1.0)
