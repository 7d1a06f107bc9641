import json
from collections.abc import Callable

import pytest

from chassis.wire.problems import Fault, InvalidRequestError, OverloadedError, Rejected, ServingError, Unavailable
from recsys.contracts import wire


@pytest.mark.parametrize(
    ("body", "batch"),
    [
        (b'{"requests": []}', True),
        (b'{"requests": null}', False),
        (b'{"user_id": "requests"}', False),
        (b'{"user_id": "a", "exclude": ["requests"]}', False),
        (b'{"requests": [}', True),
        (b'{"x": 1, "requests": []}', True),
        (b' {\n"requests"\t:\r1', True),
        (b'{"x": "y", "requests": [}', False),
        (b'["requests"]', False),
        (b"", False),
    ],
)
def test_a_batch_is_recognized_by_its_member(body, batch):
    """Only a member of the top-level object marks a batch, not text that looks like the member."""
    assert wire.is_batch(body, "requests") is batch


@pytest.mark.parametrize("pad", [b"", b" " * 20_000], ids=["short", "long"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"requests": [{"user_id": "a"}, 1, {"x": [2]}, "\\u00e9"]}',
        b'{"requests": [%s]}' % b",".join([b"{}"] * 256),
        b'{"requests": [%s]}' % b",".join([b"{}"] * 257),
        b'{"requests": [], "x": 1}',
        b'{"requests": []}',
        b'{"requests": [{}], "x": 1}',
        b'{"x": 1, "requests": [{}]}',
        b'{"requests": [{}], "requests": [1]}',
        b'{"requests": null}',
        b'{"requests": 7}',
        b'{"requests": [}',
        b'{"requests": ["\xff"]}',
        b'["requests"]',
    ],
)
def test_a_long_batch_is_split_as_a_short_one_is(body, pad):
    """The shortcut for long bodies gives what the decoder gives: the same members, or the same refusal."""
    padded = body + pad

    def outcome(read: Callable[[], object]) -> object:
        try:
            return read()
        except ServingError as error:
            return error.problem()

    def by_decoder() -> object:
        return wire.request_batch.decode(padded).requests if wire.is_batch(padded, "requests") else None

    assert outcome(lambda: wire.split_batch(padded)) == outcome(by_decoder)


def tree(root: type[ServingError]) -> list[type[ServingError]]:
    return [leaf for branch in root.__subclasses__() for leaf in [branch, *tree(branch)]]


@pytest.mark.parametrize("kind", [kind for kind in tree(ServingError) if kind not in {Rejected, Unavailable}])
def test_every_error_has_a_problem_document(kind):
    """Each error states its code, its status, and whether a retry may succeed."""
    problem = kind("a detail").problem()
    assert problem["status"] == kind.status
    assert problem["type"] == f"urn:recsys:problem:{problem['code']}"
    assert problem["title"] == kind.title
    assert problem["detail"] == "a detail"
    assert kind.retryable == (kind.status >= 500)


def test_faults_are_part_of_the_problem_document():
    """A problem document lists its faults under `errors`."""
    error = InvalidRequestError(faults=[Fault("$.a", "is missing")])
    assert error.problem()["errors"] == [{"path": "$.a", "detail": "is missing"}]


def test_codes_are_unique():
    """Every error has a unique code, by which clients distinguish errors."""
    codes = [kind.code for kind in tree(ServingError) if kind not in {Rejected, Unavailable}]
    assert len(codes) == len(set(codes))


def test_an_item_of_a_batch_can_fail_alone():
    """A failed item of a batch holds its own problem document."""
    assert json.loads(bytes(wire.error_result(OverloadedError())))["error"]["status"] == 503
