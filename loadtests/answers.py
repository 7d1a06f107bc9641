"""What a right answer is. Each judge reads one answer and says what is wrong with it, if anything."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from chassis.receipt import parse_receipt


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: status (0 where none came, then *error* says why), Server-Timing, body."""

    status: int
    body: bytes = b""
    receipt: str = ""
    error: str = ""


@dataclass(frozen=True)
class Verdict:
    """
    What became of a request.

    Attributes:
        fault: What is wrong, in words that are the same for every request with the same fault; None when nothing is.
        wrong: An answer came and is wrong, which is worse than none.
        degraded: Answered without a hop.
        batch: Requests ranked together with it, where the receipt says so.
        items: What was recommended, best first.
    """

    fault: str | None = None
    wrong: bool = False
    degraded: bool = False
    batch: int | None = None
    items: Sequence[str] = ()


def judge_recommendations(answer: Answer, *, user_id: str, top_k: int, known: Collection[str]) -> Verdict:
    """Judge an answer of recommend to a user who has surely had the items *known*."""
    if answer.status != 200:
        return Verdict(_unexpected(answer))
    try:
        body = msgspec.json.decode(answer.body)
        items = [(str(each["item_id"]), float(each["score"])) for each in body["recommendations"]]
        asked, degraded = body["user_id"], tuple(body.get("degraded", ()))
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        return Verdict(f"not the shape of an answer: {type(error).__name__}", wrong=True)
    # A hop that failed may have been the one that knows the history.
    seen = () if "features" in degraded else known
    fault = _fault(asked == user_id, items, top_k=top_k, known=seen)
    durations, facts = parse_receipt(answer.receipt)
    if fault is None and "total" not in durations:
        fault = "no receipt (Server-Timing)"
    batch = facts.get("batch", "")
    return Verdict(
        fault,
        wrong=fault is not None,
        degraded=bool(degraded),
        batch=int(batch) if batch.isdigit() else None,
        items=[item_id for item_id, _ in items],
    )


def _fault(same_user: bool, items: Sequence[tuple[str, float]], *, top_k: int, known: Collection[str]) -> str | None:  # noqa: FBT001
    ids, scores = [item_id for item_id, _ in items], [score for _, score in items]
    rules = {
        "answers for another user": same_user,
        "no recommendations": bool(items),
        "more items than asked for": len(items) <= top_k,
        "an item without id": all(ids),
        "the same item twice": len(set(ids)) == len(ids),
        "scores are not in order": scores == sorted(scores, reverse=True),
        "an item of the user's history": not set(ids) & set(known),
    }
    return next((fault for fault, holds in rules.items() if not holds), None)


def judge_event(answer: Answer) -> Verdict:
    """Judge the answer to an interaction event: an empty 202, or the features it led to where that is switched on."""
    if answer.status == 202 and not answer.body:
        return Verdict()
    if answer.status == 200:
        return Verdict()
    return Verdict(_unexpected(answer), wrong=answer.status == 202)


def judge_refusal(answer: Answer, *, status: int, code: str) -> Verdict:
    """Judge the answer to a bad request: a problem document with this *status* and *code*, and a fault with its place."""
    if answer.status != status:
        # Taken as good, or called a fault of the server: both are wrong.
        wrong = answer.status in {200, 500} or 400 <= answer.status < 500
        return Verdict(f"{_unexpected(answer)} instead of {status}", wrong=wrong)
    try:
        problem: dict[str, Any] = msgspec.json.decode(answer.body, type=dict[str, Any])
    except msgspec.DecodeError:
        return Verdict("not a problem document", wrong=True)
    if (problem.get("status"), problem.get("code")) != (status, code):
        return Verdict(f"a problem document of another kind: {problem.get('code')}", wrong=True)
    if status == 422 and not all(each.get("path") and each.get("detail") for each in problem.get("errors") or [{}]):
        return Verdict("does not say what is invalid", wrong=True)
    return Verdict()


def _unexpected(answer: Answer) -> str:
    if answer.status == 0:
        return f"no answer: {answer.error}"
    try:
        code = msgspec.json.decode(answer.body)["code"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"status {answer.status}"
    return f"status {answer.status} ({code})"
