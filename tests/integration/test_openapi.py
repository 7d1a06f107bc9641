"""The OpenAPI documents: requests made from them get answers that they describe."""

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from chassis.wire.problems import ServingError
from recsys.contracts.openapi import CONTRACTS, document
from tests.running import Running

pytestmark = pytest.mark.may_block

REQUESTS: dict[str, dict[str, object]] = {
    "recommend": {"user_id": "user_42"},
    "extract_features": {"user_id": "user_42"},
    "rank_items": {
        "features": {"age_group": "25-34", "avg_session_duration": 1, "total_purchases": 0, "engagement_score": 0.5},
        "history": [],
    },
}


# Every worker of a test run imports this file, and one needs schemathesis, which takes half a second to import.
def operation(name: str):
    import schemathesis

    return schemathesis.openapi.from_dict(msgspec.json.decode(document(name)))["/"]["POST"]


def every_check():
    from schemathesis import checks
    from schemathesis.specs.openapi import checks as conformance

    return [
        checks.not_a_server_error,
        conformance.content_type_conformance,
        conformance.response_headers_conformance,
        conformance.response_schema_conformance,
        conformance.status_code_conformance,
    ]


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_function_serves_its_document(pipeline, name):
    """`GET /openapi.json` is the document, with the fields of the wire; other methods are refused."""
    function: Running = getattr(pipeline, name)
    page = f"{function.url}/openapi.json"
    answer = httpx.get(page)
    assert (answer.status_code, answer.content) == (200, document(name))
    assert httpx.post(page).headers["allow"] == "GET, HEAD"
    properties = answer.json()["components"]["schemas"][CONTRACTS[name].request.__name__]["properties"]
    assert list(properties) == list(CONTRACTS[name].request.__struct_fields__)


@pytest.mark.parametrize("name", CONTRACTS)
def test_real_answers_are_those_of_the_document(pipeline, name):
    """
    Single and batch requests, and requests of each kind that the schema allows, get statuses, headers and bodies of the
    document. None of them gets a 500.
    """
    function: Running = getattr(pipeline, name)
    described, checks = operation(name), every_check()

    @settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=described.as_strategy())
    def check(case):
        # A budget of a few milliseconds would bring a 504.
        case.headers = {**(case.headers or {}), "X-Request-Timeout-Ms": "10000"}
        answer = case.call(base_url=function.url, timeout=20)
        case.validate_response(answer, checks=checks)

    check()
    contract, single = CONTRACTS[name], REQUESTS[name]
    member: object = "user_42" if contract.batch_member else single
    bodies: list[tuple[dict[str, object], int]] = [
        (single, 200),
        ({contract.batch_key: [member, member]}, 200),
        ({}, 422),
        ({contract.batch_key: []}, 422),
    ]
    for body, status in bodies:
        case = described.Case(body=body, media_type="application/json")
        answer = case.call(base_url=function.url, timeout=20)
        case.validate_response(answer, checks=checks)
        assert answer.status_code == status


def test_the_schema_is_strict_enough_to_refuse_another_answer(pipeline):
    """An answer of another function is not what the document describes."""
    from schemathesis.specs.openapi.checks import response_schema_conformance

    case = operation("recommend").Case(body=REQUESTS["extract_features"], media_type="application/json")
    answer = case.call(base_url=pipeline.extract_features.url, timeout=20)
    with pytest.raises(BaseExceptionGroup):
        case.validate_response(answer, checks=[response_schema_conformance])


def test_every_problem_is_in_the_document():
    """Each status and code of the tree of problems is described, with the headers that belong to the status."""
    described = msgspec.json.decode(document("recommend"))
    responses = described["paths"]["/"]["post"]["responses"]
    leaves = [error for error in every(ServingError) if not error.__subclasses__()]
    assert {str(error.status) for error in leaves} <= responses.keys()
    codes = described["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert {error.code for error in leaves} <= set(codes)
    assert "Retry-After" in responses["503"]["headers"]
    assert {"Server-Timing", "X-Request-Id"} <= responses["200"]["headers"].keys()
    names = {each["name"] for each in described["paths"]["/"]["post"]["parameters"]}
    assert {"traceparent", "Prefer", "X-Request-Timeout-Ms"} <= names


def every(error: type[ServingError]) -> list[type[ServingError]]:
    return [error, *(each for child in error.__subclasses__() for each in every(child))]
