"""Find the faults of the context that a caller sends."""

from collections.abc import Iterator, Mapping

from chassis.wire.problems import Fault
from chassis.wire.text import shown
from recsys.declaration.types import ContextField


def find_faults(context: Mapping[str, str | float], declared: Mapping[str, ContextField], path: str) -> Iterator[Fault]:
    """Yield a fault for each value of *context*, at *path*, that is not *declared* or is of another kind."""
    for name, value in context.items():
        at = f"{path}.{shown(name)}"
        if (field := declared.get(name)) is None:
            yield Fault(at, f"must be a declared context; declared are: {', '.join(declared) or 'none'}")
        elif field.kind == "number" and isinstance(value, str):
            yield Fault(at, "must be a number, not a string")
        elif field.kind == "categorical" and not isinstance(value, str):
            yield Fault(at, "must be a string, not a number")
