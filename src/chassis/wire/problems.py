"""
The errors of a request, as one tree.

    ServingError
     ├─ Rejected                 the caller's fault: a retry fails in the same way
     │   ├─ NotHttpError              400  the bytes are not HTTP/1.1, or could be read in two ways
     │   ├─ NotJsonError              400  the body is not JSON text
     │   ├─ MalformedEventError       400  the event breaks a rule of CloudEvents or of the broker; lists the faults
     │   ├─ UnauthorizedError         401  credentials are missing or not accepted
     │   ├─ ForbiddenError            403  the caller may not do this
     │   ├─ NotFoundError             404
     │   ├─ MethodNotAllowedError     405
     │   ├─ RequestTimeoutError       408  the head or the body arrived too slowly
     │   ├─ BodyTooLargeError         413
     │   ├─ UnsupportedMediaTypeError 415
     │   ├─ MisdirectedError          421  the request is for another host
     │   ├─ InvalidRequestError       422  valid JSON that violates the contract; lists the faults
     │   └─ HeadTooLargeError         431  the headers are over the limit
     └─ Unavailable              a retry may succeed
         ├─ OverloadedError           503  shed; says when to retry
         ├─ NotReadyError             503  starting or draining
         ├─ DependencyError           503  a store or a hop failed
         ├─ DeadlineExceededError     504  the caller's budget is spent
         └─ StorageFullError          507  the disk is full

Only this module sets the status of an error. A problem document (RFC 9457) contains nothing but the fields of an error,
so that no internal text, path or trace can reach a body.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar, Self

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """One fault of a request: its place (a JSON path) and a description."""

    path: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path} {self.detail}"


MAX_FAULTS = 100
_MAX_COUNTED = 100


def _list_faults(faults: Iterable[Fault]) -> list[Fault]:
    """Return the first 100 of *faults*; if there are more, add one that gives their number, counted up to 100."""
    found = iter(faults)
    listed, more = list(islice(found, MAX_FAULTS)), sum(1 for _ in islice(found, _MAX_COUNTED))
    if not more:
        return listed
    return [*listed, Fault("$", f"and {more} more" if more < _MAX_COUNTED else f"and at least {more} more")]


class ServingError(Exception):
    """Root of the tree. Subclasses define `status`, `code` and `title`; instances add details."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        detail: str | None = None,
        *,
        faults: Iterable[Fault] = (),
        retry_after_s: float | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """*detail* goes to the caller: a sentence about the request, without internal information."""
        super().__init__(detail or self.title)
        self.detail = detail
        self.faults = tuple(_list_faults(faults))
        self.retry_after_s = retry_after_s
        self.headers = tuple(headers)

    def problem(self) -> dict[str, Any]:
        """Return the RFC 9457 members of this error."""
        document: dict[str, Any] = {
            "type": f"urn:recsys:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
        }
        if self.detail:
            document["detail"] = self.detail
        if self.faults:
            document["errors"] = [{"path": fault.path, "detail": fault.detail} for fault in self.faults]
        return document


class Rejected(ServingError):  # noqa: N818 - a branch of the tree, never raised itself
    """The request is at fault; a retry fails in the same way."""


class NotHttpError(Rejected):
    """400: the bytes are not a request of HTTP/1.1, or two readers could understand them differently."""

    status, code, title = 400, "not-http", "The request is not valid HTTP"


class NotJsonError(Rejected):
    """400: the body is not a JSON text in UTF-8."""

    status, code, title = 400, "not-json", "The body is not JSON"


class MalformedEventError(Rejected):
    """400: the event breaks a rule of CloudEvents or of the broker."""

    status, code, title = 400, "malformed-event", "The event is not valid"


class UnauthorizedError(Rejected):
    """401: credentials are missing or not accepted."""

    status, code, title = 401, "unauthorized", "Credentials are missing or not accepted"


class ForbiddenError(Rejected):
    """403: the caller may not send this request."""

    status, code, title = 403, "forbidden", "The caller may not send this request"


class NotFoundError(Rejected):
    """404: the path does not exist."""

    status, code, title = 404, "not-found", "There is nothing at this path"


class MethodNotAllowedError(Rejected):
    """405: the path does not accept this method; `headers` must contain Allow."""

    status, code, title = 405, "method-not-allowed", "This path does not take this method"

    @classmethod
    def of(cls, allow: str) -> Self:
        """Return the error of a path that accepts the methods in *allow*, which has the form of the header."""
        return cls(f"send {allow.replace(', ', ' or ')}", headers=[("allow", allow)])


class RequestTimeoutError(Rejected):
    """408: the caller took too long to send its request."""

    status, code, title = 408, "request-timeout", "The request did not arrive in time"


class BodyTooLargeError(Rejected):
    """413: the body is longer than the limit."""

    status, code, title = 413, "body-too-large", "The body is over the limit"


class UnsupportedMediaTypeError(Rejected):
    """415: the content type is not one the door reads."""

    status, code, title = 415, "unsupported-media-type", "The content type is not supported"


class MisdirectedError(Rejected):
    """421: the request is for a host that this server does not serve."""

    status, code, title = 421, "misdirected", "The request is for another host"


class InvalidRequestError(Rejected):
    """422: valid JSON that violates the contract; `faults` has up to 100 faults."""

    status, code, title = 422, "invalid-request", "The request is not valid"


class HeadTooLargeError(Rejected):
    """431: the request line and the headers together, or the trailers, are over the limit."""

    status, code, title = 431, "head-too-large", "The headers are over the limit"


class Unavailable(ServingError):  # noqa: N818 - a branch of the tree, never raised itself
    """A retry may succeed."""

    retryable = True


class OverloadedError(Unavailable):
    """503: shed, because more requests wait than can be served in time."""

    status, code, title = 503, "overloaded", "Too much is waiting already"


class NotReadyError(Unavailable):
    """503: the instance is starting or draining."""

    status, code, title = 503, "not-ready", "This instance takes no requests now"


class DependencyError(Unavailable):
    """503: a store or a hop that the answer needs failed."""

    status, code, title = 503, "dependency-failed", "Something this answer needs is not available"


class DeadlineExceededError(Unavailable):
    """504: the caller's time budget is spent."""

    status, code, title = 504, "deadline-exceeded", "The time budget of the request is spent"


class StorageFullError(Unavailable):
    """507: the disk is full."""

    status, code, title = 507, "storage-full", "The disk is full"


def raised_errors(error: type[ServingError] = ServingError) -> Iterator[type[ServingError]]:
    """Yield the classes of errors that are raised: the root, which is a bug, and those without subclasses."""
    children = error.__subclasses__()
    if not children or error is ServingError:
        yield error
    for child in children:
        yield from raised_errors(child)
