"""
The permitted content of an object's fields: shapes in YAML files, and checks against them.

text, truth, number, any: as it says; scalar: any but a list or a mapping · label, subdomain: names of DNS · quantity: 500m, 2, 1Gi
dnslabel: a label that may begin with a digit · filename: a key of a ConfigMap · base64: bytes
plainpath, below: a relative path that stays below its directory · header, line: name and value of a header
env, port, container: the name of a variable, a port, the name of a container that Knative does not use itself
whole, decimal, duration, seconds: text that holds a number, a Go duration, one of whole seconds
period: text that holds an ISO 8601 duration · LOW..HIGH: the range, either end may be open
one of A B: these words, "" for none · ".other": any further key · ".key": what such a key must be · ".not": but none that begins so, and why
".needs": these must be there · ".one": exactly one of these must be there · a number in a list: most items
"""

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from kubeyaml.annotations import canonical
from kubeyaml.documents import read_trusted
from kubeyaml.quantities import parse_duration_ns, parse_period_s, parse_quantity

FieldFault = tuple[str, str]


def shapes(name: str) -> dict[str, Any]:
    """Read the shapes that one of the files beside this module holds, by kind."""
    loaded: dict[str, Any] = read_trusted(Path(__file__).with_name(name))
    return loaded


def field_faults(value: Any, shape: Any, *, path: str = "") -> Iterator[FieldFault]:
    """Yield the faults of *value* against *shape*; null counts as absent."""
    if value is None or shape == "any":
        return
    if isinstance(shape, dict) and isinstance(value, dict):
        yield from _mapping_faults(value, shape, path=path)
    elif isinstance(shape, list) and isinstance(value, list):
        if len(value) > (most := shape[1] if len(shape) > 1 else len(value)):
            yield path, f"at most {most} can run here"
        for index, item in enumerate(value):
            if item is None:
                yield f"{path}[{index}]", "must not be null"
            yield from field_faults(item, shape[0], path=f"{path}[{index}]")
    elif not isinstance(shape, str):
        yield path, f"must be a {'list' if isinstance(shape, list) else 'mapping'}, not {value!r}"
    elif reason := _refusal(value, shape):
        yield path, f"{value!r} {reason}"


def _mapping_faults(value: Mapping[str, Any], shape: Mapping[str, Any], *, path: str) -> Iterator[FieldFault]:
    prefix = f"{path}." if path else ""
    if "annotations" in path:
        value = canonical(value)
    # The fields of an object may be null; the values of a map, as of annotations, may not.
    is_map = shape.get(".other", "any") != "any"
    for key, item in value.items():
        reason = _key_refusal(key, shape)
        if reason is None and item is None and is_map:
            reason = "must not be null"
        if reason is not None:
            yield f"{prefix}{key}", reason
        else:
            yield from field_faults(item, shape[key if _names_field(key, shape) else ".other"], path=f"{prefix}{key}")
    for key in shape.get(".needs", ()):
        if not value.get(key):
            yield f"{prefix}{key}", "is missing"
    if (choice := shape.get(".one")) and sum(value.get(key) is not None for key in choice) != 1:
        yield path, f"exactly one of {', '.join(choice)} is wanted"


def _names_field(key: str, shape: Mapping[str, Any]) -> bool:
    """Tell whether *shape* names the field *key*; its own entries begin with a dot and are no fields."""
    return key in shape and not key.startswith(".")


def _key_refusal(key: str, shape: Mapping[str, Any]) -> str | None:
    """Return why *shape* has no field *key*; None if it has one."""
    if _names_field(key, shape):
        return None
    if reason := next((why for start, why in shape.get(".not", {}).items() if key.startswith(start)), None):
        return str(reason)
    if ".key" in shape and (reason := _refusal(key, shape[".key"])):
        return reason
    return None if ".other" in shape else "is not known to Knative, or forbidden"


def _refusal(value: Any, shape: str) -> str | None:
    """Return why *value* does not fit *shape*; None if it fits."""
    kind, _, rest = shape.partition(" ")
    if kind == "one":
        words = [word.strip('"') for word in rest.split()[1:]]
        return None if str(value) in words else f"is none of {', '.join(word for word in words if word)}"
    read = _KINDS[kind]
    try:
        number = read(value)
    except (ValueError, TypeError):
        return f"is not a valid {kind}"
    as_number = read if kind in {"duration", "seconds"} else float
    low, high = (as_number(end) if end else None for end in (rest or "..").split(".."))
    within = (low is None or low <= number) and (high is None or number <= high)
    return None if within else f"is outside {rest}"


def _matching(pattern: str, read: Callable[[str], Any]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not re.fullmatch(pattern, value):
            raise ValueError
        return read(value)

    return check


def _typed(kind: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) is not kind:  # in Python a bool is an int
            raise TypeError
        return value

    return check


def _within_32_bits(number: int) -> int:
    if not -(2**31) <= number < 2**31:
        raise ValueError
    return number


def _relative_path(text: str, *, hidden: bool) -> str:
    """Return *text* if it is a relative path that stays below its directory."""
    if not text or text.startswith("/") or ".." in text.split("/") or "\0" in text:
        raise ValueError
    if text.startswith("..") and not hidden:  # names that the kubelet reserves
        raise ValueError
    return text


def _scalar(value: Any) -> Any:
    if isinstance(value, (dict, list)):
        raise TypeError
    return value


def _seconds(text: str) -> float:
    seconds, rest = divmod(parse_duration_ns(text), 10**9)
    if rest:
        raise ValueError
    return seconds


_KINDS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "text": _typed(str),
    "truth": _typed(bool),
    "scalar": _scalar,
    "number": lambda value: _within_32_bits(_typed(int)(value)),
    "port": lambda value: _matching(r"(?!(8008|8012|8013|8022|9090|9091)$).*", int)(str(_typed(int)(value))),
    "dnslabel": _matching(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", str),
    "subdomain": _matching(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?", str),
    "label": _matching(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", str),
    "env": _matching(r"(?!(PORT|K_SERVICE|K_CONFIGURATION|K_REVISION)$)[^=]+", str),
    "container": _matching(r"(?!queue-proxy$).*", str),
    "whole": _matching(r"[+-]?\d+", int),
    "decimal": _matching(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", float),
    "duration": parse_duration_ns,
    "seconds": _seconds,
    "period": parse_period_s,
    "plainpath": lambda value: _relative_path(_typed(str)(value), hidden=False),
    "below": lambda value: value and _relative_path(_typed(str)(value), hidden=True),
    "filename": _matching(r"(?!\.\.?$|\.\.)[-._a-zA-Z0-9]{1,253}", str),
    "base64": lambda value: base64.b64decode(_typed(str)(value), validate=True),
    "header": _matching(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+", str),
    "line": _matching(r"[\x20-\x7e\xa0-\xff]*", str),
    "quantity": lambda value: parse_quantity(str(value)),
}
