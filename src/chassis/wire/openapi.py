"""
Describe a function's door as an OpenAPI 3.1 document.

The schemas come from the types that decode requests and encode answers, and the errors from the tree of problems. The
document therefore cannot differ from the code. JSON Schema has no words for some rules of the decoder, such as the
characters that no text may contain. A body that the schema allows can still be refused with 422.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from chassis.wire.problems import Fault, ServingError, Unavailable, raised_errors

_PROBLEM = "application/problem+json"
_JSON = "application/json"
_REFERENCE = "#/components/schemas/{name}"


@dataclass(frozen=True)
class Contract:
    """
    The door of a function: `POST /`.

    Attributes:
        name: Name of the function.
        summary: A sentence about the answers of the function.
        request: Type of a single request.
        answer: Type of the answer to it.
        batch_key: Member of a batch request that holds the requests.
        batch_member: Type of the members of a batch; None for whole requests.
        most: Largest number of members of a batch.
        events: Types of the CloudEvents that the door accepts.
        headers: Further request headers, by name, with their meanings.
        answer_headers: Further answer headers, by name, with their meanings.
    """

    name: str
    summary: str
    request: type[msgspec.Struct]
    answer: type[msgspec.Struct]
    batch_key: str
    batch_member: Any | None
    most: int
    events: tuple[str, ...]
    headers: tuple[tuple[str, str], ...] = ()
    answer_headers: tuple[tuple[str, str], ...] = ()


def describe(contract: Contract, *, version: str) -> dict[str, Any]:
    """Return the OpenAPI document of *contract*."""
    types = [contract.request, contract.answer, Fault, *([contract.batch_member] if contract.batch_member else ())]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    request, answer = schemas[:2]
    member = schemas[3] if contract.batch_member else request
    problem = {"$ref": _REFERENCE.format(name="Problem")}
    components |= {
        "Problem": _problem(),
        "Batch": _batch(contract, member),
        "BatchAnswer": _object({"results": _list(_any_of(answer, _object({"error": problem})), contract.most)}),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": contract.name, "summary": contract.summary, "version": version},
        "paths": {"/": {"post": _operation(contract, request, answer)}},
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(contract: Contract, request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    batch, batch_answer = ({"$ref": _REFERENCE.format(name=name)} for name in ("Batch", "BatchAnswer"))
    accepted = {"description": "The events are accepted.", "headers": _headers((_ALWAYS,))}
    return {
        "operationId": contract.name,
        "summary": contract.summary,
        "security": [{}, {"bearer": []}],
        "parameters": [
            {"name": name, "in": "header", "description": meaning, "schema": schema}
            for name, meaning, schema in (*_REQUEST, *((name, text, _TEXT) for name, text in contract.headers))
        ],
        "requestBody": {
            "required": True,
            "content": {
                _JSON: {"schema": _any_of(request, batch)},
                "application/cloudevents+json": {"schema": _event(contract)},
            },
        },
        "responses": {
            "200": {
                "description": "The answer, or an event that replies to an event.",
                "headers": _headers((_ALWAYS, _RECEIPT, *contract.answer_headers)),
                "content": {
                    _JSON: {"schema": _any_of(answer, batch_answer)},
                    "application/cloudevents+json": {"schema": {"type": "object"}},
                },
            },
            "202": accepted,
            **_errors(),
        },
    }


_TEXT = {"type": "string"}
_REQUEST: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("X-Request-Timeout-Ms", "The time budget in milliseconds.", {"type": "number", "minimum": 0}),
    ("X-Request-Id", "Identifies the request in logs.", {"type": "string", "pattern": "^[!-~]{1,128}$"}),
    ("traceparent", "W3C trace context.", {"type": "string", "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"}),
    ("tracestate", "W3C trace context.", {"type": "string", "pattern": "^[!-~]*$"}),
)
_ALWAYS = ("X-Request-Id", "The caller's id of the request, or a new one.")
_RECEIPT = ("Server-Timing", "The receipt: milliseconds of each step, and the revisions that answered.")
_OF_ERRORS = {
    401: ("WWW-Authenticate", "How to authenticate."),
    405: ("Allow", "The accepted method."),
    503: ("Retry-After", "Seconds until a retry is useful."),
}


def _errors() -> dict[str, Any]:
    """Return the responses of all errors that can be raised, by status."""
    errors: dict[int, list[type[ServingError]]] = {}
    for error in sorted(raised_errors(), key=lambda error: (error.status, error.code)):
        errors.setdefault(error.status, []).append(error)
    return {
        str(status): {
            "description": "; ".join(f"`{each.code}`: {each.title}" for each in found)
            + (" (a retry may succeed)" if issubclass(found[0], Unavailable) else ""),
            "headers": _headers((_ALWAYS, *([_OF_ERRORS[status]] if status in _OF_ERRORS else ()))),
            "content": {_PROBLEM: {"schema": {"$ref": _REFERENCE.format(name="Problem")}}},
        }
        for status, found in errors.items()
    }


def _problem() -> dict[str, Any]:
    members: dict[str, Any] = {
        "type": _TEXT,
        "title": _TEXT,
        "status": {"type": "integer"},
        "code": {"enum": sorted({error.code for error in raised_errors()})},
    }
    optional = {"detail": _TEXT, "errors": _list({"$ref": _REFERENCE.format(name="Fault")}, None)}
    return _object(members, optional) | {"description": "A problem document (RFC 9457)."}


def _batch(contract: Contract, member: dict[str, Any]) -> dict[str, Any]:
    members = {contract.batch_key: _list(member, contract.most)}
    return _object(members) | {"additionalProperties": False, "description": "Several requests."}


def _event(contract: Contract) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1},
        "source": {"type": "string", "minLength": 1},
        "type": {"enum": list(contract.events)},
    }
    return _object(attributes, {"data": {"type": "object"}}) | {"description": "A CloudEvent 1.0 in structured mode."}


def _headers(meanings: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {name: {"description": meaning, "schema": _TEXT} for name, meaning in meanings}


def _list(member: dict[str, Any], most: int | None) -> dict[str, Any]:
    return {"type": "array", "items": member} | ({"minItems": 1, "maxItems": most} if most else {})


def _any_of(*schemas: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": list(schemas)}


def _object(members: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": members | (optional or {}), "required": list(members)}
