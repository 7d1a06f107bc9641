"""Read the answers of a pipeline."""

from typing import Any

import httpx
import msgspec

from chassis.hop.retries import parse_retry_after
from chassis.wire.json_text import NOT_DECODED
from recsys.client.errors import OtherServerError, Problem, ProblemError
from recsys.contracts.wire import EXPOSURE_HEADER, BatchAnswer, Recommendations


class _Failed(msgspec.Struct, frozen=True):
    error: Problem


def read(answer: httpx.Response) -> Recommendations:
    """Return the recommendations in *answer*, or raise its error."""
    found: Recommendations = _decode(checked(answer).content, Recommendations, answer)
    return msgspec.structs.replace(found, exposure_id=answer.headers.get(EXPOSURE_HEADER.decode(), found.exposure_id))


def read_each(answer: httpx.Response) -> list[Recommendations | ProblemError]:
    """Return the result of each request of a batch, or raise the error of the whole batch."""
    return [_read_result(each, answer) for each in _decode(checked(answer).content, BatchAnswer, answer).results]


def _read_result(content: msgspec.Raw, answer: httpx.Response) -> Recommendations | ProblemError:
    try:
        return msgspec.json.decode(content, type=Recommendations)
    except msgspec.ValidationError:
        failed = _decode(bytes(content), _Failed, answer)
    return ProblemError(failed.error, retry_after_s=None, request_id=answer.headers.get("x-request-id"))


def checked(answer: httpx.Response) -> httpx.Response:
    """Return *answer*, or raise the problem that it holds."""
    if answer.is_success:
        return answer
    raise ProblemError(
        _decode(answer.content, Problem, answer),
        retry_after_s=parse_retry_after(answer.headers.get("retry-after", "")),
        request_id=answer.headers.get("x-request-id"),
    )


def _decode(content: bytes, type_: Any, answer: httpx.Response) -> Any:
    try:
        return msgspec.json.decode(content, type=type_)
    except NOT_DECODED as error:
        raise OtherServerError(
            f"{answer.url}: status {answer.status_code}, but the answer does not come from a pipeline; check the URL"
        ) from error
