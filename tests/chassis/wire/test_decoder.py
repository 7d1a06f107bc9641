import itertools
import json
from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from chassis.wire.decoder import NOT_READ, Decoder
from chassis.wire.problems import Fault, InvalidRequestError, NotJsonError
from chassis.wire.text import NOT_TEXT
from recsys.contracts import wire


class Inner(Struct, frozen=True, forbid_unknown_fields=True):
    number: Annotated[float, Meta(ge=0, le=1)]


class Sample(Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=5)]
    count: Annotated[int, Meta(ge=1, le=100)] = 5
    inner: Inner | None = None
    items: Annotated[list[str], Meta(min_length=1, max_length=3)] = msgspec.field(default_factory=lambda: ["a"])
    on: bool = False
    free: msgspec.Raw = msgspec.Raw(b"null")
    code: Annotated[str, Meta(pattern="^[a-z]+$")] = "a"
    share: Annotated[float, Meta(gt=0, le=1)] = 1.0


class Lengths(Struct, frozen=True):
    name: str
    length: float


decoder = Decoder(Sample)


def faults(body: bytes) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        decoder.decode(body)
    return {fault.path: fault.detail for fault in caught.value.faults}


def test_a_number_must_be_above_an_open_limit():
    """The limit itself is a fault, which names the limit."""
    assert faults(b'{"name": "a", "share": 0}') == {"$.share": "must be above 0"}
    assert decoder.decode(b'{"name": "a", "share": 0.1}').share == 0.1


def test_a_valid_body_is_decoded():
    """The decoder returns the type for a valid body and fills in defaults."""
    assert decoder.decode(b'{"name": "abc"}') == Sample("abc")


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"{", b"{'name': 'a'}", b"nonsense", b"\xff\xfe", b'{"name":"\xff"}', b'{"name":"a"} 1', b'{"name":"a\x01"}',
     b"\xef\xbb\xbf{}", b'{"count":NaN}', b'{"count":Infinity}', b"[" * 10_000],
    ids=repr,
)  # fmt: skip
def test_a_body_that_is_not_json_is_refused(body):
    """A body that is not JSON in UTF-8 raises NotJsonError, even if it has further faults."""
    with pytest.raises(NotJsonError):
        decoder.decode(body)


def test_all_faults_are_reported_together():
    """The decoder lists every fault of a body with its JSON path."""
    body = b'{"count":0,"inner":{"number":2,"x":1},"items":[1,"b",null],"on":"yes","code":"A1","other":1}'
    assert faults(body) == {
        "$.name": "is missing",
        "$.count": "must be at least 1",
        "$.inner.number": "must be at most 1",
        "$.inner.x": "is not a known field",
        "$.items[0]": "must be a string, not a number",
        "$.items[2]": "must be a string, not null",
        "$.on": "must be true or false, not a string",
        "$.code": "must match ^[a-z]+$",
        "$.other": "is not a known field",
    }


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("true", "must be an integer, not a boolean"),
        ('"5"', "must be an integer, not a string"),
        ("5.5", "must be an integer, not a number"),
        ("5.0", "must be an integer, not a number"),
        ("101", "must be at most 100"),
        ("9" * 5000, "must be an integer, not a number"),
        ("1e999", "must be an integer, not a number"),
        ("[]", "must be an integer, not an array"),
        ("{}", "must be an integer, not an object"),
    ],
)
def test_integers_are_read_strictly(text, detail):
    """Only a JSON integer within the bounds is accepted as an integer."""
    assert faults(f'{{"name":"a","count":{text}}}'.encode()) == {"$.count": detail}


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("", "must not be empty"),
        ("abcdef", "must have at most 5 characters, not 6"),
        (r"\u0000", "must not hold control characters"),
        (r"a\nb", "must not hold control characters"),
        (r"\u0085", "must not hold control characters"),
        ("\x7f", "must not hold control characters"),
        ("a\x80", "must not hold control characters"),
        ("a\x9f", "must not hold control characters"),
        ("\ufdd0", "must not hold noncharacters"),
        ("\ufdef", "must not hold noncharacters"),
        ("x\uffff", "must not hold noncharacters"),
        ("\U0001fffe", "must not hold noncharacters"),
        ("\U0010ffff", "must not hold noncharacters"),
    ],
)
def test_strings_are_text(name, detail):
    """Strings may not contain control characters, unpaired surrogates or noncharacters."""
    assert faults(f'{{"name":"{name}"}}'.encode()) == {"$.name": detail}


@pytest.mark.parametrize("name", [r"\ud800", r"x\udfff", r"\uD83D", r"\ud800\ud800"])
def test_unpaired_surrogates_are_a_fault_of_the_whole_body(name):
    """An unpaired surrogate is a fault of the whole body, because the JSON reader does not report its place."""
    assert faults(f'{{"name":"{name}"}}'.encode()) == {"$": "must not hold unpaired surrogates"}


def test_an_over_long_array_is_one_fault():
    """The decoder does not check the items of an array that is too long."""
    for count in (4, 5000):
        body = json.dumps({"name": "a", "items": [1] * count, "other": 1}).encode()
        assert faults(body) == {"$.items": "must have at most 3 items", "$.other": "is not a known field"}


def test_an_over_long_text_is_one_fault():
    """The decoder does not check the characters of a text that is too long."""
    assert faults(rb'{"name":"\u0000\u0000\u0000\u0000\u0000\u0000"}') == {
        "$.name": "must have at most 5 characters, not 6"
    }


def test_escapes_of_printable_characters_are_accepted():
    """An escaped quote or surrogate pair is an ordinary character."""
    assert decoder.decode(rb'{"name":"a\"\ud83d\ude00"}').name == 'a"😀'


@given(name=st.text(min_size=1, max_size=5))
def test_ids_are_valid_event_attributes(name):
    """The decoder accepts exactly those ids that are allowed as attributes of an event."""
    body = json.dumps({"name": name}, ensure_ascii=False).encode(errors="surrogatepass")
    try:
        assert decoder.decode(body).name == name
    except (InvalidRequestError, NotJsonError):
        assert NOT_TEXT.search(name)
    else:
        assert not NOT_TEXT.search(name)


@pytest.mark.parametrize(
    ("body", "what"), [(b"[]", "an array"), (b"null", "null"), (b'"x"', "a string"), (b"1", "a number")]
)
def test_the_body_must_be_an_object(body, what):
    """The decoder refuses JSON that is not an object."""
    assert faults(body) == {"$": f"must be an object, not {what}"}


@pytest.mark.parametrize(("count", "last"), [(100, None), (101, "and 1 more"), (199, "and 99 more")])
def test_the_list_of_faults_is_limited(count, last):
    """The answer to a body with many faults lists the first hundred and the number of the others."""
    found = faults(json.dumps({"name": "a", **{f"x{n}": n for n in range(count)}}).encode())
    assert len(found) == min(count, 101)
    assert found.get("$") == last


def test_the_count_of_unlisted_faults_is_limited():
    """After a hundred unlisted faults the answer gives a lower bound."""
    error = InvalidRequestError(faults=(Fault(f"$[{number}]", "is wrong") for number in itertools.count()))
    assert (len(error.faults), error.faults[-1]) == (101, Fault("$", "and at least 100 more"))


def test_an_object_with_too_many_fields_is_refused_early():
    """The decoder names the first of many unknown fields, so that it keeps no large object in memory."""
    body = json.dumps({"name": "a", **{f"x`{n}": n for n in range(5000)}}).encode()
    assert faults(body) == {"$.x`0": "is not a known field"}


def test_a_long_body_of_too_many_arrays_and_objects_is_refused():
    """The decoder counts them outside of strings, however the strings escape quotes."""
    nested = "[]," * 8192
    filler = " " * 2**14
    assert faults(f'{{"name":"a","x":[{nested}[]]}}{filler}'.encode()) == {
        "$": "must have at most 8192 arrays and objects"
    }
    for text in ("[{" * 8192, r"\"[[" * 8192, r"\\", "[" * 16_382 + r"\"" + "[" * 16_384):
        body = f'{{"name":"a","{text}":1}}{filler}'.encode()
        assert set(faults(body)) == {"$." + json.loads(body).popitem()[0][:64].replace("\\", r"\\")}


def test_an_unknown_field_name_is_shortened_and_escaped():
    """The answer repeats a caller's field name shortened and escaped, so that it cannot write to a terminal."""
    body = ('{"name":"a","' + "y" * 1000 + '":1,"\\u001b[2Jé":2}').encode()
    assert set(faults(body)) == {"$." + "y" * 64, r"$.\x1b[2J\xe9"}


def test_the_members_of_a_batch_are_decoded_one_by_one():
    """Each member becomes a value or an error; after 4 KiB of refused members the rest is refused unread."""
    good, bad = msgspec.Raw(b'{"name":"a"}'), msgspec.Raw(json.dumps({"name": "b" * 1500}).encode())
    results = decoder.decode_each([bad, good, bad, bad, good, bad])
    assert [type(each) for each in results] == [InvalidRequestError, Sample, *[InvalidRequestError] * 4]
    assert [isinstance(each, InvalidRequestError) and each.detail for each in results[3:]] == [None, NOT_READ, NOT_READ]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
known = st.fixed_dictionaries(
    {},
    optional={
        "user_id": values,
        "top_k": values | st.integers(0, 102),
        "exclude": values | st.lists(st.text(max_size=3)),
    },
)


@pytest.mark.parametrize("name", ["a", r"\u0061"], ids=["read once", "read twice"])
def test_long_integers_are_accepted_as_floats(name):
    """A float field accepts an integer of any length, and reports a number that exceeds every float."""
    lengths = Decoder(Lengths)
    for digits in ("1" + "0" * 50, "9" * 308, "-" + "7" * 41):
        assert lengths.decode(f'{{"name":"{name}","length":{digits}}}'.encode()) == Lengths("a", float(digits))
    with pytest.raises(InvalidRequestError) as caught:
        lengths.decode(f'{{"name":"{name}","length":{"9" * 400}}}'.encode())
    assert [fault.detail for fault in caught.value.faults] == ["is not a finite number"]


@given(body=known | values)
def test_decoding_and_fault_listing_agree(body):
    """Any JSON is either decoded or refused with at least one fault; no other error is raised."""
    encoded = json.dumps(body).encode()
    try:
        request = wire.recommend_request.decode(encoded)
    except InvalidRequestError as error:
        assert error.faults
    else:
        assert {"user_id": request.user_id} | {"top_k": request.top_k, "exclude": request.exclude} == {
            "top_k": 5,
            "exclude": [],
        } | body


@given(body=st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(body):
    """Arbitrary bytes raise NotJsonError or InvalidRequestError."""
    with pytest.raises((NotJsonError, InvalidRequestError)):
        wire.features_batch.decode(body)
