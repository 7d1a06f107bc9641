"""A refused body is checked further: faults that a type cannot state are listed with those of the types."""

from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from chassis.wire.decoder import Decoder
from chassis.wire.problems import Fault, InvalidRequestError

Word = Annotated[str, Meta(min_length=1, max_length=8)]
KNOWN = {"brand": "words", "price": "number"}


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    name: Word
    kind: Literal["words", "number"] = "words"
    least: float | None = None


class Body(Struct, frozen=True, forbid_unknown_fields=True):
    name: Word
    count: Annotated[int, Meta(ge=1, le=9)] = 1
    parts: Annotated[list[Part], Meta(max_length=5)] = []
    context: Annotated[dict[Word, Word | float], Meta(max_length=5)] = {}


decoder = Decoder(Body)


def check(body: Body) -> Body:
    faults = [
        *(Fault(f"$.parts[{n}].name", "is unknown") for n, part in enumerate(body.parts) if part.name not in KNOWN),
        *(
            Fault(f"$.parts[{n}].least", "is no range")
            for n, part in enumerate(body.parts)
            if part.kind == "words" and part.least is not None
        ),
        *(Fault(f"$.context.{name}", "is unknown") for name in body.context if name != "hour"),
    ]
    if not (body.parts or body.context):
        faults.append(Fault("$", "is empty"))
    if faults:
        raise InvalidRequestError(faults=faults)
    return body


def faults(body: object) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        decoder.read(msgspec.json.encode(body), check)
    return {fault.path: fault.detail for fault in caught.value.faults}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"name": 7, "parts": [{"name": "colour"}]}, {"$.name": "must be a string, not a number", "$.parts[0].name": "is unknown"}),
        ({"parts": [{"name": "size"}]}, {"$.name": "is missing", "$.parts[0].name": "is unknown"}),
        ({"name": "a", "parts": [{}, {"name": "size"}]}, {"$.parts[0].name": "is missing", "$.parts[1].name": "is unknown"}),
        ({"name": "a", "parts": [3, {"name": "size"}]}, {"$.parts[0]": "must be an object, not a number", "$.parts[1].name": "is unknown"}),
        ({"name": "a", "context": {"x": [], "page": "p"}}, {"$.context.x": "must be a string or a number, not an array", "$.context.page": "is unknown"}),
        ({"name": "a", "cuont": 3, "context": {"page": 1}}, {"$.cuont": "is not a known field", "$.context.page": "is unknown"}),
    ],
)  # fmt: skip
def test_faults_of_both_kinds_are_listed_together(body, found):
    """A fault in one part does not hide what is wrong with the others."""
    assert faults(body) == found


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"name": "a", "parst": []}, ["$.parst"]),
        ({"name": "a", "parts": "all"}, ["$.parts"]),
        ({"name": "a", "parts": [{"name": "price", "kind": "numeric", "least": 3}]}, ["$.parts[0].kind"]),
        ([], ["$"]),
        ({"name": "a\u0000", "context": {"a\u0000": 1}}, ["$.name", r"$.context.a\x00"]),
    ],
)
def test_what_may_follow_from_a_faulty_part_is_not_listed(body, found):
    """No fault is invented: what a stand-in decides, or what encloses a faulty part, is left out."""
    assert list(faults(body)) == found


def test_more_faults_than_are_listed_hide_the_rest():
    """The places of faults beyond the hundredth are unknown, so the parts that are right are unknown too."""
    body = {"name": "a", "parts": [{"name": "size"}], **{f"unknown{n}": 1 for n in range(150)}}
    found = faults(body)
    assert len(found) == 101
    assert "$.parts[0].name" not in found


def test_a_body_without_faults_is_checked_once():
    """The result of the check is returned, and its error is raised as it is."""
    assert decoder.read(b'{"name":"a","context":{"hour":3}}', lambda body: check(body).context) == {"hour": 3.0}
    assert faults({"name": "a"}) == {"$": "is empty"}


def test_a_batch_is_read_one_by_one():
    """Each member has its own result or its own error."""
    bodies = [b'{"name":"a","context":{"hour":1}}', b'{"name":1,"context":{"page":1}}']
    good, bad = decoder.read_each([msgspec.Raw(body) for body in bodies], check)
    assert isinstance(good, Body)
    assert isinstance(bad, InvalidRequestError)
    assert [fault.path for fault in bad.faults] == ["$.name", "$.context.page"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-20, 20) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "kind", "x"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "count", "parts", "context", "more"), JSON)))
def test_a_refused_body_always_has_its_own_faults_first(body):
    """Any JSON is accepted, or refused with the faults of the types and perhaps more, each once."""
    text = msgspec.json.encode(body)
    try:
        decoder.decode(text)
    except InvalidRequestError as refusal:
        with pytest.raises(InvalidRequestError) as caught:
            decoder.read(text, check)
        found = caught.value.faults
        assert found[: len(refusal.faults)] == refusal.faults
        assert len({fault.path for fault in found}) >= len({fault.path for fault in refusal.faults})
        assert decoder.mended(text, refusal)


def test_a_long_body_is_not_mended():
    """Refusing a long body costs no further reading of it."""
    long = {"name": 7, "x": "y" * 140_000, "context": {"page": 1}}
    assert list(faults(long)) == ["$.name", "$.x"]
