"""Members of a batch are decoded together, with the results of decoding each alone."""

import itertools

import pytest
from msgspec import Raw, Struct

from chassis.wire.decoder import Decoder
from chassis.wire.json_text import LONG_BYTES
from chassis.wire.problems import Fault, InvalidRequestError, ServingError


class Pair(Struct, frozen=True):
    """A member of a batch."""

    name: str
    count: int = 0


pairs = Decoder(Pair)

MEMBERS = [
    b'{"name":"a"}',
    b' {"name":"b","count":7,"more":[1,{}]} ',
    b'{"name":"never","count":13}',
    b'{"name":3}',
    b'{"name":"\\u0007"}',
    b"7",
    b'{"name":"%b"}' % (b"x" * LONG_BYTES),
]


def check(pair: Pair) -> tuple[str, int]:
    if pair.count == 13:
        raise InvalidRequestError(faults=[Fault("$.count", "must not be 13")])
    return pair.name, pair.count


def told(result: tuple[str, int] | ServingError) -> object:
    return [str(result), list(result.faults)] if isinstance(result, ServingError) else result


@pytest.mark.parametrize("members", [each for size in (1, 2, 3) for each in itertools.permutations(MEMBERS, size)])
def test_members_decode_as_each_alone(members):
    """Valid, invalid, forbidden and long members in any company give the result that each gives alone."""
    together = pairs.read_each([Raw(each) for each in members], check)
    alone = [pairs.read_each([Raw(each)], check)[0] for each in members]
    assert [told(each) for each in together] == [told(each) for each in alone]
    assert len(together) == len(members)


def test_no_members_give_no_results():
    """An empty batch has no results."""
    assert pairs.read_each([], check) == []
