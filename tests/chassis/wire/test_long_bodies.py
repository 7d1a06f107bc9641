"""Long bodies: the decoder refuses only those that break a limit. The content of their strings does not matter."""

import json
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from chassis.wire import cloudevents, json_text
from chassis.wire.decoder import Decoder
from chassis.wire.json_text import LONG_BYTES, is_crowded
from chassis.wire.problems import InvalidRequestError

MOST = 5

texts = st.text('[]{}",:\\/n1\n ', max_size=6)
values = st.recursive(
    st.integers(0, 9) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


class Names(Struct, forbid_unknown_fields=True):
    names: Annotated[list[str], Meta(max_length=MOST)]


def count_nested(value: Any) -> int:
    """Return the number of arrays and objects in *value*."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + sum(map(count_nested, inner))


def long(value: Any) -> bytes:
    """Return *value* as JSON that is long because of the space at its end."""
    return json.dumps(value, separators=(",", ":")).encode() + b" " * LONG_BYTES


@given(value=values)
def test_only_arrays_and_objects_outside_of_strings_count(value: Any) -> None:
    """A long body is crowded if it has too many arrays and objects. Brackets and quotes in strings do not count."""
    for most in (0, 1, 2, 4, 8):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_text, "MAX_NESTED", most)
            assert is_crowded(long(value)) is (count_nested(value) > most)


@given(items=st.lists(values, max_size=2 * MOST), padding=st.sampled_from([[], ["x" * LONG_BYTES]]))
def test_only_an_array_with_too_many_items_is_too_long(items: list[Any], padding: list[str]) -> None:
    """The decoder counts the items of a long array, not the commas in its items."""
    items = items + padding
    body = json.dumps({"names": items}, separators=(",", ":")).encode()
    too_long = len(items) > MOST
    try:
        value = Decoder(Names).decode(body)
    except InvalidRequestError as error:
        assert (f"must have at most {MOST} items" in [fault.detail for fault in error.faults]) is too_long
    else:
        assert value.names == items
        assert not too_long


@pytest.mark.parametrize(("place", "length"), [("before", None), ("after", None), ("before", 100), ("after", 100)])
def test_long_data_of_an_event_are_kept_as_they_are(place: str, length: int | None) -> None:
    """An attribute may repeat the data, or begin like the data."""
    data = "7" * (LONG_BYTES + 1)
    members = ['"specversion":"1.0","id":"1","source":"/s","type":"t"', f'"data":{data}']
    members.insert(1 if place == "before" else 2, f'"x":"{data[:length]}"')
    event = cloudevents.read([(b"content-type", b"application/cloudevents+json")], f"{{{','.join(members)}}}".encode())
    assert event is not None
    assert event.data == data.encode()
    assert event.attributes["x"] == data[:length]
