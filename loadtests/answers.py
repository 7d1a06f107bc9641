"""Rules for a correct answer. Each `judge_*` function checks one answer and names the first fault."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from chassis.receipt import parse_receipt


@dataclass(frozen=True)
class LoadAnswer:
    """
    An HTTP answer.

    Attributes:
        status: Status code; 0 if no answer arrived.
        receipt: The Server-Timing header.
        error: Why no answer arrived.
    """

    status: int
    body: bytes = b""
    receipt: str = ""
    error: str = ""


@dataclass(frozen=True)
class AnswerVerdict:
    """
    The result of checking one answer.

    Attributes:
        fault: Description of the fault, equal for all requests with the same fault; None if the answer is correct.
        wrong: Whether an incorrect answer arrived; that is worse than no answer.
        degraded: Whether a hop failed and the answer was made without it.
        batch: Size of the batch that the request was ranked in, if the receipt has it.
        items: Ids of the recommended items, best first.
    """

    fault: str | None = None
    wrong: bool = False
    degraded: bool = False
    batch: int | None = None
    items: Sequence[str] = ()


def judge_recommendations(answer: LoadAnswer, *, user_id: str, top_k: int, known: Collection[str]) -> AnswerVerdict:
    """
    Check an answer of recommend.

    *known* are items that are certainly in the user's history, so the answer must not contain them.
    """
    if answer.status != 200:
        return AnswerVerdict(_unexpected(answer))
    try:
        body = msgspec.json.decode(answer.body)
        items = [(str(each["item_id"]), float(each["score"])) for each in body["recommendations"]]
        asked, degraded = body["user_id"], tuple(body.get("degraded", ()))
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        return AnswerVerdict(f"malformed answer: {type(error).__name__}", wrong=True)
    # Without extract_features, recommend does not know the history.
    seen = () if "features" in degraded else known
    fault = _fault(asked == user_id, items, top_k=top_k, known=seen)
    durations, facts = parse_receipt(answer.receipt)
    if fault is None and "total" not in durations:
        fault = "no receipt (Server-Timing)"
    batch = facts.get("batch", "")
    return AnswerVerdict(
        fault,
        wrong=fault is not None,
        degraded=bool(degraded),
        batch=int(batch) if batch.isdigit() else None,
        items=[item_id for item_id, _ in items],
    )


def _fault(same_user: bool, items: Sequence[tuple[str, float]], *, top_k: int, known: Collection[str]) -> str | None:  # noqa: FBT001
    ids, scores = [item_id for item_id, _ in items], [score for _, score in items]
    rules = {
        "answer for another user": same_user,
        "no recommendations": bool(items),
        "more items than requested": len(items) <= top_k,
        "an item without id": all(ids),
        "the same item twice": len(set(ids)) == len(ids),
        "scores not in descending order": scores == sorted(scores, reverse=True),
        "an item of the user's history": not set(ids) & set(known),
    }
    return next((fault for fault, holds in rules.items() if not holds), None)


def judge_event(answer: LoadAnswer) -> AnswerVerdict:
    """Check the answer to an interaction event: an empty 202, or a 200 with features if replies are enabled."""
    if answer.status == 202 and not answer.body:
        return AnswerVerdict()
    if answer.status == 200:
        return AnswerVerdict()
    return AnswerVerdict(_unexpected(answer), wrong=answer.status == 202)


def judge_refusal(answer: LoadAnswer, *, status: int, code: str) -> AnswerVerdict:
    """Check the answer to an invalid request: a problem document with *status* and *code* that locates the fault."""
    if answer.status != status:
        # Accepting the request is wrong, and so is blaming the server or another fault.
        wrong = answer.status in {200, 500} or 400 <= answer.status < 500
        return AnswerVerdict(f"{_unexpected(answer)} instead of {status}", wrong=wrong)
    try:
        problem: dict[str, Any] = msgspec.json.decode(answer.body, type=dict[str, Any])
    except msgspec.DecodeError:
        return AnswerVerdict("not a problem document", wrong=True)
    if (problem.get("status"), problem.get("code")) != (status, code):
        return AnswerVerdict(f"unexpected problem code: {problem.get('code')}", wrong=True)
    if status == 422 and not all(each.get("path") and each.get("detail") for each in problem.get("errors") or [{}]):
        return AnswerVerdict("does not say what is invalid", wrong=True)
    return AnswerVerdict()


def _unexpected(answer: LoadAnswer) -> str:
    if answer.status == 0:
        return f"no answer: {answer.error}"
    try:
        code = msgspec.json.decode(answer.body)["code"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"status {answer.status}"
    return f"status {answer.status} ({code})"
