"""
The declaration of the running experiments, as recommend reads it from its setting EXPERIMENTS.

Experiments of one layer share the users of the layer: each has a slice of them, and no user is in two. Experiments of
different layers overlap. The slices and the arms are chosen by separate hashes, so the arms of two layers are independent.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from chassis.environment import is_http_url
from chassis.wire.decoder import Decoder
from chassis.wire.problems import Fault, ServingError
from chassis.wire.repair import independent
from recsys.contracts.wire import Diversity, Exploration

_MOST = 256
MAX_NAMES = 64
"""Characters of the names of the experiments of a user, or of the user's arms, with commas between them."""

_Name = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z", max_length=32)]
_Share = Annotated[float, Meta(gt=0, le=1)]
_TOLERANCE = 1e-9


class Arm(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    An arm, and how it differs from the default.

    Attributes:
        name: The name.
        share: Share of the users of the experiment.
        url: Address of the rank_items that ranks, such as the URL of a tag; "" for the default one.
        diversity: Diversity of requests that name none; None for the default.
        exploration: Draws a part of the lists at random; None for the default.
        stopped: The users of the arm keep it and get the default.
    """

    name: _Name
    share: _Share
    url: str = ""
    diversity: Diversity | None = None
    exploration: Exploration | None = None
    stopped: bool = False

    def changes(self) -> set[str]:
        """Return the names of the settings that the arm changes."""
        values = {"url": self.url or None, "diversity": self.diversity, "exploration": self.exploration}
        return {name for name, value in values.items() if value is not None}


class Experiment(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    An experiment.

    Attributes:
        name: The name.
        arms: The arms; their shares add up to 1. The first is the control.
        salt: Part of the hash that chooses arms; "" for the name. Another salt moves users to other arms.
        layer: The layer; "" for a layer that no other experiment has.
        offset: Start of the slice of the layer, from 0.
        share: Size of the slice: the share of the layer's users who take part.
        users: Users that the plan asks for; the intervals of the analysis are narrowest there.
        started_us: Time of the start, microseconds since the epoch; the analysis counts earlier lists as history.
    """

    name: _Name
    arms: Annotated[tuple[Arm, ...], Meta(min_length=2, max_length=16)]
    salt: Annotated[str, Meta(max_length=64)] = ""
    layer: Annotated[str, Meta(max_length=64)] = ""
    offset: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    share: _Share = 1.0
    users: Annotated[int, Meta(ge=1)] = 10_000
    started_us: Annotated[int, Meta(ge=0)] = 0

    @property
    def in_layer(self) -> str:
        """The layer."""
        return self.layer or self.name

    @property
    def hashed(self) -> str:
        """The salt of the arms."""
        return self.salt or self.name

    def changes(self) -> set[str]:
        """Return the names of the settings that an arm changes."""
        return set().union(*(arm.changes() for arm in self.arms))


class Contradiction(NamedTuple):
    """Parts of a declaration that do not fit together: their places (JSON paths), and a description."""

    places: Sequence[str]
    detail: str


def read_experiments(text: str) -> tuple[Experiment, ...]:
    """
    Return the experiments that *text* declares.

    Raises:
        ValueError: the text does not hold a declaration; lists every fault.
    """
    body = text.encode()
    try:
        found = _decoder.decode(body)
    except ServingError as refusal:
        faults = [str(each) for each in refusal.faults] or [refusal.detail or refusal.title]
        mended = _decoder.mended(body, refusal)
        more = [each.detail for each in _common(mended) if _is_apart(each, refusal.faults)]
        raise ValueError("; ".join([*faults, *more])) from refusal
    if contradictions := list(find_contradictions(found)):
        raise ValueError("; ".join(each.detail for each in contradictions))
    return found


def _common(mended: Sequence[Sequence[Experiment]]) -> list[Contradiction]:
    found = [list(find_contradictions(each)) for each in mended]
    return [each for each in found[0] if all(each in other for other in found)] if found else []


def _is_apart(contradiction: Contradiction, faults: Sequence[Fault]) -> bool:
    """Tell whether *contradiction* reads none of the parts that have *faults*."""
    places = [Fault(place, "") for place in contradiction.places]
    return len(independent(places, faults)) == len(places)


def find_contradictions(experiments: Sequence[Experiment]) -> Iterator[Contradiction]:
    """Yield the parts of *experiments* that do not fit together."""
    for place, each in enumerate(experiments):
        yield from _in_experiment(each, f"$[{place}]")
    for (place, one), (other_place, other) in combinations(enumerate(experiments), 2):
        places = [f"$[{place}]", f"$[{other_place}]"]
        if one.name == other.name:
            yield Contradiction([f"{each}.name" for each in places], f"the experiment {one.name} is declared twice")
        yield from _between(one, other, places)
    names_of_arms = _longest(experiments, lambda each: [arm.name for arm in each.arms])
    if max(_longest(experiments, lambda each: [each.name]), names_of_arms) > MAX_NAMES:
        yield Contradiction(
            ["$"],
            f"the names of the experiments or arms of a user have more than {MAX_NAMES} characters: use shorter names",
        )


def _in_experiment(experiment: Experiment, place: str) -> Iterator[Contradiction]:
    names, arms = [arm.name for arm in experiment.arms], f"{place}.arms"
    for number, arm in enumerate(experiment.arms):
        if arm.url and not is_http_url(arm.url):
            url = f"{arms}[{number}].url"
            yield Contradiction([url], f"{url} must be a http(s) URL, not {arm.url!r}")
    if len({*names}) < len(names):
        yield Contradiction([arms], f"{arms} has two arms of one name")
    if abs(sum(arm.share for arm in experiment.arms) - 1) > _TOLERANCE:
        yield Contradiction([arms], f"{arms} has shares that do not add up to 1")
    if experiment.offset + experiment.share > 1 + _TOLERANCE:
        yield Contradiction([f"{place}.offset", f"{place}.share"], f"{place} has a slice that ends after its layer")


def _between(one: Experiment, other: Experiment, places: Sequence[str]) -> Iterator[Contradiction]:
    layers = [f"{place}.{part}" for place in places for part in ("name", "layer")]
    if one.in_layer == other.in_layer:
        if _overlap(one, other):
            slices = [f"{place}.{part}" for place in places for part in ("offset", "share")]
            yield Contradiction(
                [*layers, *slices],
                f"{one.name} and {other.name} overlap in the layer {one.in_layer}: give them separate slices",
            )
    elif both := one.changes() & other.changes():
        yield Contradiction(
            [*layers, *(f"{place}.arms" for place in places)],
            f"{one.name} and {other.name} change the same setting ({', '.join(sorted(both))}): put them into one layer",
        )


def _overlap(one: Experiment, other: Experiment) -> bool:
    return one.offset < other.offset + other.share - _TOLERANCE and other.offset < one.offset + one.share - _TOLERANCE


def _longest(experiments: Sequence[Experiment], names_of: Callable[[Experiment], Sequence[str]]) -> int:
    """Return the most characters that the names of a user's experiments, one of each layer, can have."""
    layers: dict[str, int] = {}
    for each in experiments:
        layers[each.in_layer] = max(layers.get(each.in_layer, 0), *map(len, names_of(each)))
    return sum(layers.values()) + len(layers) - 1


_Declared = Annotated[tuple[Experiment, ...], Meta(max_length=_MOST)]
_decoder: Decoder[tuple[Experiment, ...]] = Decoder(_Declared)
