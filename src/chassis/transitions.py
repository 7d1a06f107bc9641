"""State machines as tables: all transitions of a machine stand in one place, and any other transition is an error."""

from collections.abc import Mapping
from typing import TypeVar

S = TypeVar("S")
E = TypeVar("E")


class IllegalTransitionError(RuntimeError):
    """The event cannot happen in the state: a bug of the code that reports the event."""


def advance(table: Mapping[tuple[S, E], S], state: S, event: E) -> S:
    """
    Return the state after *event*, as *table* says for *state* and *event*.

    Raises:
        IllegalTransitionError: *table* has no row for them.
    """
    try:
        return table[state, event]
    except KeyError:
        raise IllegalTransitionError(f"{event} cannot happen in the state {state}") from None
