"""Bodies that are made to cost the reader time: refusing them costs little more than receiving them."""

import json
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import pytest

from chassis.wire import cloudevents
from chassis.wire.headers import RawHeaders
from chassis.wire.problems import ServingError
from functions.extract_features.ingest import read_interaction
from recsys.contracts import wire
from recsys.declaration.reader import default_declaration
from tests.hostile.conftest import Figure

pytestmark = pytest.mark.may_block

MIB = 2**20
SIZE = MIB // 8
STRUCTURED = [(b"content-type", b"application/cloudevents+json")]
BINARY = [
    (f"ce-{name}".encode(), b"1.0" if name == "specversion" else b"t")
    for name in ("specversion", "id", "source", "type")
]
BATCH = [(b"content-type", b"application/cloudevents-batch+json")]
EVENT = b'{"specversion":"1.0","id":"1","source":"/s","type":"t"'


def array(item: str, *, length_bytes: int) -> str:
    """Return a JSON array of equal items."""
    return f"[{','.join([item] * (length_bytes // (len(item.encode()) + 1)))}]"


def names(count_bytes: int) -> str:
    """Return members of a JSON object with different names."""
    return ",".join(f'"{number:05x}":1' for number in range(count_bytes // 10))


SHAPES: dict[str, Callable[[int], str]] = {
    **{
        f"array of {item[:12]}": lambda n, item=item: array(item, length_bytes=n)  # type: ignore[misc]
        for item in (
            *("1", '"a"', '"ab"', "[]", "{}", "1.5", "1e9", "null", "true", '{"a":1}', '"\\u00e9"', '"é"'),
            *('""', '"["', '"\\n"', "[[[]]]", '{"":{}}', "0.1", " 1", '"\\"["'),
        )
    },
    "array of nested arrays": lambda n: array("[" * 400 + "]" * 400, length_bytes=n),
    "array of nested objects": lambda n: array('{"":' * 400 + "1" + "}" * 400, length_bytes=n),
    "array of long numbers": lambda n: array("9" * 4200, length_bytes=n),
    "object": lambda n: f"{{{names(n)}}}",
    "object with one name": lambda n: "{" + ",".join(['"a":1'] * (n // 6)) + "}",
    "object without names": lambda n: "{" + ",".join(['"":1'] * (n // 5)) + "}",
    "object of escaped names": lambda n: "{" + ",".join(['"\\n":1'] * (n // 7)) + "}",
    "text": lambda n: '"' + "a" * n + '"',
    "text of newlines": lambda n: '"' + "\\n" * (n // 2) + '"',
    "text of controls": lambda n: '"' + "\\u0001" * (n // 6) + '"',
    "text of pairs": lambda n: '"' + "\\ud83d\\ude00" * (n // 12) + '"',
    "text of brackets": lambda n: '"' + "[" * n + '"',
    "text of half pairs": lambda n: '"' + "\\ud800" * (n // 6) + '"',
    "text of emoji": lambda n: '"' + "😀" * (n // 4) + '"',
    "number": lambda n: "9" * n,
    "fraction": lambda n: "0." + "1" * n,
    "space": lambda n: " " * n + "1",
    "unfinished": lambda n: "[" + "1," * (n // 2),
    "unfinished nesting": lambda n: "[" * n,
}


def recommend(body: bytes) -> object:
    """Read a request as recommend does."""
    if (requests := wire.split_batch(body)) is not None:
        return first(wire.recommend_request.decode_each(requests))
    return wire.recommend_request.decode(body)


def rank(body: bytes) -> object:
    """Read a request as rank_items does."""
    if (requests := wire.split_batch(body)) is not None:
        return first(wire.rank_request.decode_each(requests))
    return wire.rank_request.decode(body)


def extract(body: bytes) -> object:
    """Read a request as extract_features does."""
    return (wire.features_batch if wire.is_batch(body, "user_ids") else wire.features_request).decode(body)


def interaction(headers: RawHeaders) -> Callable[[bytes], object]:
    """Return a function that reads events of interactions as extract_features does."""
    kinds = default_declaration().events
    return lambda body: [read_interaction(each, kinds=kinds) for each in cloudevents.read_events(headers, body)]


def carry(body: bytes) -> object:
    """Read an event as the broker does."""
    return cloudevents.read(STRUCTURED, body)


def first(results: Sequence[object]) -> object:
    """Return the first of *results*, or raise it."""
    if isinstance(results[0], ServingError):
        raise results[0]
    return results[0]


DOORS: dict[str, tuple[Callable[[bytes], object], str]] = {
    "recommend body": (recommend, "%s"),
    "recommend user_id": (recommend, '{"user_id":%s}'),
    "recommend top_k": (recommend, '{"user_id":"a","top_k":%s}'),
    "recommend exclude": (recommend, '{"user_id":"a","exclude":%s}'),
    "recommend context": (recommend, '{"user_id":1,"context":%s}'),
    "recommend unknown": (recommend, '{"user_id":"a","x":%s}'),
    "recommend requests": (recommend, '{"requests":%s}'),
    "recommend member": (recommend, '{"requests":[{"user_id":1,"exclude":%s}]}'),
    "features user_ids": (extract, '{"user_ids":%s,"x":1}'),
    "rank history": (rank, '{"features":{},"history":%s}'),
    "rank history and exclude": (rank, '{"features":{},"exclude":1,"history":%s}'),
    "rank attributes": (rank, '{"features":{},"history":[],"user_attributes":%s}'),
    "rank features": (rank, '{"features":%s,"history":[]}'),
    "rank unknown feature": (rank, '{"features":{"x":%s},"history":[]}'),
    "rank member": (rank, '{"requests":[{"features":{"x":%s},"history":[]}]}'),
    "event document": (interaction(STRUCTURED), "%s"),
    "event attribute": (interaction(STRUCTURED), EVENT.decode() + ',"x":%s}'),
    "event id": (interaction(STRUCTURED), '{"id":%s}'),
    "event data": (interaction(STRUCTURED), EVENT.decode() + ',"data":%s}'),
    "event batch": (interaction(BATCH), "%s"),
    "event batch data": (interaction(BATCH), "[" + EVENT.decode() + ',"data":{"x":%s}}]'),
    "binary event": (interaction(BINARY), "%s"),
    "broker's event": (carry, "%s"),
    "broker's event data": (carry, '{"id":1,"data":%s}'),
    "broker's event attribute": (carry, EVENT.decode() + ',"x":%s}'),
}


def refuse(door: Callable[[bytes], object], body: bytes) -> ServingError:
    """Return the error with which *door* refuses *body*."""
    with pytest.raises(ServingError) as caught:
        door(body)
    return caught.value


def refusal_ms(door: Callable[[bytes], object], body: bytes, *, repeats: int = 1) -> float:
    """Return the least CPU time of some refusals of *body*, in ms per MB."""
    spent_s = []
    for _ in range(repeats):
        began = time.process_time()
        refuse(door, body)
        spent_s.append(time.process_time() - began)
    return min(spent_s) * 1000 * 1e6 / len(body)


def count_calls(act: Callable[[], object]) -> int:
    """Return the number of Python function calls that *act* makes."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
    return calls


def peak_bytes(act: Callable[[], object]) -> int:
    """Return the peak memory of *act* in bytes."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", DOORS)
def test_a_refusal_costs_little_more_than_receiving_the_body(name: str, figure: Figure) -> None:
    """
    A bounded number of Python calls, a few copies of the body in memory, and at most 100 faults and one more.

    The figure is the CPU time per MB of the slowest shape.
    """
    door, template = DOORS[name]

    def body_of(shape: str) -> bytes:
        return (template % SHAPES[shape](SIZE)).encode()

    times_ms: dict[str, float] = {}
    for shape in SHAPES:
        body = body_of(shape)
        # The first refusal of a process makes decoders, which later refusals use again.
        try:
            door(body)
        except ServingError:
            error = refuse(door, body)
            times_ms[shape] = refusal_ms(door, body)
        else:
            continue
        assert len(error.faults) <= 101, shape
        assert len(json.dumps(error.problem())) < 100_000, shape
        assert count_calls(lambda: refuse(door, body)) < 10_000, shape  # noqa: B023
        assert peak_bytes(lambda: refuse(door, body)) < 8 * SIZE, shape  # noqa: B023
    # A single time includes what other processes do to the caches, so the slowest shapes are measured again.
    for shape in sorted(times_ms, key=lambda shape: times_ms[shape])[-5:]:
        times_ms[shape] = refusal_ms(door, body_of(shape), repeats=5)
    slowest = max(times_ms, key=lambda shape: times_ms[shape])
    figure(f"{name}: CPU time per MB refused ({slowest})", times_ms[slowest], "ms")


MEMBERS = {
    "1000 wrong ids": '{"user_id":"a","exclude":[1' + ",1" * 999 + "]}",
    "a wrong last id": '{"user_id":"a","exclude":[' + '"a",' * 999 + "1]}",
    "a control last": '{"user_id":"a","exclude":[' + '"a",' * 999 + '"\\u0001"]}',
    "unknown fields": f"{{{names(2000)}}}",
}


@pytest.mark.parametrize("shape", MEMBERS)
def test_refusing_the_members_of_a_batch_is_bounded(shape: str, figure: Figure) -> None:
    """256 members that each take long to refuse: after 4 KiB of them, the rest are refused unread."""
    body = f'{{"requests":{json.dumps([json.loads(MEMBERS[shape])] * wire.MAX_BATCH, separators=(",", ":"))}}}'.encode()

    def decode() -> list[Any]:
        return wire.recommend_request.decode_each(wire.split_batch(body) or ())

    began = time.process_time()
    results = decode()
    spent_ms = (time.process_time() - began) * 1000 * 1e6 / len(body)
    assert all(isinstance(each, ServingError) for each in results)
    assert len(results) == wire.MAX_BATCH
    assert sum(len(wire.error_result(each)) for each in results) < 3 * len(body)
    calls = count_calls(decode)
    figure(f"batch of {shape}: CPU time per MB refused", spent_ms, "ms")
    assert calls < 60_000
