"""Computes the flags of `kn service update` that undo changes of a template. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from kubeyaml.annotations import annotations_of

# Annotations that kn renews with every update.
_NOTES = "client.knative.dev/"
# Knative's default of timeoutSeconds.
_TIMEOUT_S = 300


def undo(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """
    Return the flags that turn the template of the Service *after* into that of *before*; none if they are equal.

    Covers image, variables, annotations, the concurrency limit, the time limit, resources.
    """
    return [*_undo(before["spec"]["template"], after["spec"]["template"])]


def _undo(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    one, other = before["spec"]["containers"][0], after["spec"]["containers"][0]
    if one["image"] != other["image"]:
        yield from ("--image", one["image"])
    yield from _entries("--env", _values(one), _values(other))
    # kn's --annotation-revision sets annotations but does not remove them; --annotation would set them on the Service too.
    yield from _entries("--annotation-revision", _annotations(before), _annotations(after), removal="--annotation")
    for flag, field in (("--request", "requests"), ("--limit", "limits")):
        yield from _entries(flag, *((each.get("resources") or {}).get(field) or {} for each in (one, other)))
    if (limit := before["spec"].get("containerConcurrency") or 0) != (after["spec"].get("containerConcurrency") or 0):
        yield from ("--concurrency-limit", str(limit))
    if (seconds := _timeout_s(before)) != _timeout_s(after):
        yield from ("--timeout", str(seconds))


def _timeout_s(template: Mapping[str, Any]) -> int:
    return int(template["spec"].get("timeoutSeconds") or _TIMEOUT_S)


def _entries(
    flag: str, one: Mapping[str, str], other: Mapping[str, str], *, removal: str | None = None
) -> Iterator[str]:
    for name in sorted({*one, *other}):
        if name not in one:
            yield from (removal or flag, f"{name}-")
        elif one[name] != other.get(name):
            yield from (flag, f"{name}={one[name]}")


def _values(container: Mapping[str, Any]) -> dict[str, str]:
    return {each["name"]: each.get("value") or "" for each in container.get("env") or () if "valueFrom" not in each}


def _annotations(template: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in annotations_of(template).items() if not name.startswith(_NOTES)}
