"""
The filters of a Trigger.

Source: knative/eventing pkg/eventfilter/subscriptionsapi and pkg/eventfilter/attributes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

FilterValue = str | int | bool
Filter = Callable[[Mapping[str, FilterValue]], bool]

_COMPARISONS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "exact": str.__eq__,
    "prefix": str.startswith,
    "suffix": str.endswith,
    # Of `filter.attributes`: the attribute is present with any value.
    "present": lambda value, _: value != "",
}


def text(value: FilterValue) -> str:
    """Return the canonical text of an attribute's value, which is what filters compare."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def every(filters: Sequence[Mapping[str, Any]]) -> Filter:
    """
    Return a filter that passes an event if all of *filters* do; an empty filter passes every event.

    Args:
        filters: The valid filters of a Trigger.
    """
    made = [_filter(given) for given in filters if any(given.values())]
    return lambda attributes: all(passes(attributes) for passes in made)


def _filter(given: Mapping[str, Any]) -> Filter:
    dialect, wanted = next((dialect, wanted) for dialect, wanted in given.items() if wanted)
    if dialect == "all":
        return every(wanted)
    if dialect == "any":
        made = [_filter(nested) for nested in wanted if any(nested.values())]
        return lambda attributes: not made or any(passes(attributes) for passes in made)
    if dialect == "not":
        inner = every([wanted])
        return lambda attributes: not inner(attributes)
    compare = _COMPARISONS[dialect]
    return lambda attributes: all(
        name in attributes and compare(text(attributes[name]), value) for name, value in wanted.items()
    )
