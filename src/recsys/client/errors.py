"""The errors of a call, and the problem document behind them."""

import msgspec

from chassis.wire.problems import Fault


class CallError(Exception):
    """A call has no usable answer."""


class NoAnswerError(CallError):
    """The pipeline cannot be reached, or did not answer within the deadline. A later call may succeed."""


class OtherServerError(CallError):
    """The answer does not come from a pipeline: the URL names another server."""


class ProblemError(CallError):
    """
    The pipeline refused the request, or failed.

    Attributes:
        status: HTTP status.
        code: Kind of the problem, such as "invalid-request" or "overloaded".
        title: The kind in words.
        detail: A sentence about this request, or None.
        faults: The faults of the request.
        retry_after_s: Seconds until another call is useful, or None.
        request_id: Identifies the request in the pipeline's logs, or None.
    """

    def __init__(self, problem: "Problem", *, retry_after_s: float | None, request_id: str | None) -> None:
        faults = "; ".join(map(str, problem.errors))
        super().__init__(f"{problem.status} {problem.code}: {faults or problem.detail or problem.title}")
        self.status, self.code, self.title, self.detail = problem.status, problem.code, problem.title, problem.detail
        self.faults = problem.errors
        self.retry_after_s = retry_after_s
        self.request_id = request_id

    @property
    def retryable(self) -> bool:
        """Whether a later call may succeed."""
        return self.status in {502, 503, 504}


class Problem(msgspec.Struct, frozen=True):
    """A problem document, as far as a client uses it."""

    status: int
    code: str
    title: str
    detail: str | None = None
    errors: tuple[Fault, ...] = ()
