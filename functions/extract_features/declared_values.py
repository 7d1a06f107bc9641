"""Check the values of attributes in events by the declaration."""

from collections.abc import Callable, Collection, Mapping, Sequence

from chassis.wire.problems import Fault, InvalidRequestError
from recsys.contracts.events import AttributeValues
from recsys.declaration.types import AttributeKind
from recsys.declaration.values import CANONICAL, Malformed

Values = tuple[str, ...]


def read_values(
    given: Sequence[AttributeValues],
    kind_of: Callable[[str], AttributeKind | None],
    *,
    declared: Collection[str],
    allowed: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Values]:
    """
    Return the values of each attribute. Numbers and times get the form that they have after an import.

    Args:
        given: The attributes of an event.
        kind_of: Returns the kind of an attribute; None if it is not declared.
        declared: The names of the declared attributes, for messages.
        allowed: The only values that some attributes may have.

    Raises:
        InvalidRequestError: lists attributes that are not declared, and values that do not suit their attribute.
    """
    faults: list[Fault] = []
    named: dict[str, Values] = {}
    for place, each in enumerate(given):
        if (kind := kind_of(each.attribute)) is None:
            known = ", ".join(declared) or "none"
            faults.append(Fault(f"$.attributes[{place}].attribute", f"must be declared; declared are: {known}"))
            continue
        try:
            named[each.attribute] = _read(each, kind, (allowed or {}).get(each.attribute))
        except Malformed as error:
            faults.append(Fault(f"$.attributes[{place}].values", str(error)))
    if faults:
        raise InvalidRequestError(faults=faults)
    return named


def _read(given: AttributeValues, kind: AttributeKind, allowed: Sequence[str] | None) -> Values:
    canonical = CANONICAL.get(kind)
    values = tuple(canonical(text, given.attribute) if canonical else text for text in given.values)
    if kind != "multi-valued" and len(values) > 1:
        raise Malformed(f"must be one {kind}, not {len(values)}")
    if allowed and not set(values) <= set(allowed):
        raise Malformed(f"must be one of {', '.join(allowed)}")
    return values
