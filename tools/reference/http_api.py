"""The tables of the HTTP API: bodies from the wire's types, errors from the tree of problems."""

import msgspec
from msgspec import inspect

from chassis.wire.problems import Unavailable, raised_errors
from recsys.contracts import wire
from tools.reference.tables import table

BODIES: dict[str, type[msgspec.Struct]] = {
    "recommend request": wire.RecommendRequest,
    "extract_features request": wire.FeaturesRequest,
    "extract_features answer": wire.FeaturesAnswer,
    "features": wire.Features,
    "rank_items request": wire.RankRequest,
    "rank_items answer": wire.RankAnswer,
    "item": wire.RankedItem,
}

# By code, the cause of each error.
CAUSES = {
    "not-http": "not HTTP/1.1, or two readers could understand the request differently; closes the connection",
    "not-json": "the body is not JSON, or not UTF-8",
    "malformed-event": "broker: the event breaks a rule of CloudEvents or of the broker",
    "unauthorized": "credentials are missing or not accepted; sent with `WWW-Authenticate`",
    "forbidden": "dashboard: a page of another site sent the request",
    "not-found": "another path; broker: an unknown Broker",
    "method-not-allowed": "another method; sent with `Allow`",
    "request-timeout": "the head took over 10 s to arrive, or the body over 60 s; closes the connection",
    "body-too-large": "the body exceeds `MAX_BODY_BYTES`",
    "unsupported-media-type": "neither `application/json` nor `…+json`; a missing type and curl's form type count as JSON; or the body is compressed",
    "misdirected": "broker and dashboard: the request names another host",
    "invalid-request": "JSON that violates the function's input",
    "head-too-large": "request line and headers, or trailers, exceed 64 KiB or 128 headers; closes the connection",
    "overloaded": "the queue is full, or too many connections are open; sent with `Retry-After`",
    "not-ready": "the instance is starting or stopping; sent with `Retry-After`",
    "dependency-failed": "a store or another function failed; sent with `Retry-After`",
    "deadline-exceeded": "the time budget is spent; closes the connection if the body is incomplete",
    "storage-full": "broker: the disk is full; sent with `Retry-After`",
    "internal": "a bug",
}


def tables() -> dict[str, str]:
    """
    Return the tables by name.

    Raises:
        ValueError: `CAUSES` lacks an error of the tree, or has one that is not in the tree.
    """
    return {name: _body(type_) for name, type_ in BODIES.items()} | {"errors": _errors()}


def _body(type_: type[msgspec.Struct]) -> str:
    found = inspect.type_info(type_)
    if not isinstance(found, inspect.StructType):
        raise TypeError(f"{type_.__name__} is not a struct")
    rows = [(f"`{field.encode_name}`", _type(field.type) + _default(field)) for field in found.fields]
    return table(("field", "value"), rows)


def _default(field: inspect.Field) -> str:
    if field.required:
        return ""
    if field.default is field.default_factory is msgspec.NODEFAULT:
        return "; optional"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return f"; if absent: `{msgspec.json.encode(value).decode()}`" if value else "; optional"


_PLAIN: dict[type[inspect.Type], str] = {
    inspect.BoolType: "boolean",
    inspect.NoneType: "null",
    inspect.DateTimeType: "time with time zone (RFC 3339)",
}


def _type(found: inspect.Type) -> str:
    match found:
        case inspect.StrType():
            return "string" + _length(found.min_length, found.max_length, "characters")
        case inspect.IntType() | inspect.FloatType():
            return ("integer" if isinstance(found, inspect.IntType) else "number") + _bounds(found.ge, found.le, "")
        case inspect.ListType() | inspect.VarTupleType():
            unit = "entry" if found.max_length == 1 else "entries"
            return f"list{_length(found.min_length, found.max_length, unit)}; each: {_type(found.item_type)}"
        case inspect.UnionType():
            return " or ".join(_type(part) for part in found.types)
        case inspect.StructType():
            return "object: " + ", ".join(f"`{field.encode_name}`" for field in found.fields)
        case _:
            return _rare_type(found)


def _rare_type(found: inspect.Type) -> str:
    match found:
        case inspect.BoolType() | inspect.NoneType() | inspect.DateTimeType():
            return _PLAIN[type(found)]
        case inspect.LiteralType():
            return " or ".join(f"`{value}`" for value in found.values)
        case inspect.DictType():
            return f"object; each value: {_type(found.value_type)}"
        case _:
            raise TypeError(f"{found!r}: add the words for this type to tools/reference/http_api.py")


def _length(least: int | None, most: int | None, unit: str) -> str:
    return _bounds(least, most, f" {unit}")


def _bounds(least: float | None, most: float | None, unit: str) -> str:
    if least is None and most is None:
        return ""
    if least is None:
        return f", at most {most:,}{unit}"
    return f", at least {least:,}{unit}" if most is None else f", {least:,} to {most:,}{unit}"


def _errors() -> str:
    errors = sorted({(error.status, error.code, error) for error in raised_errors()}, key=lambda row: row[:2])
    if wrong := {code for _, code, _ in errors} ^ CAUSES.keys():
        raise ValueError(f"CAUSES in tools/reference/http_api.py lacks an error or has one too many: {sorted(wrong)}")
    rows = [
        (str(status), f"`{code}`", CAUSES[code], "yes" if issubclass(error, Unavailable) else "no")
        for status, code, error in errors
    ]
    return table(("status", "code", "cause", "a retry may succeed"), rows)
