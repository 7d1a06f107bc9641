"""
Changes to a Service's description, as `kn service update` makes them.

Source: knative/client pkg/traffic/compute.go for what --tag, --untag and --traffic do together.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kubeyaml.errors import EditError, ManifestError
from kubeyaml.resources import Resource

LATEST: Sequence[Mapping[str, Any]] = ({"latestRevision": True, "percent": 100},)
"""`spec.traffic` of a Service that does not say."""

_LATEST_REF = "@latest"


def container(body: Mapping[str, Any]) -> dict[str, Any]:
    """The one container of a Service."""
    found: dict[str, Any] = body["spec"]["template"]["spec"]["containers"][0]
    return found


def change_template(
    body: Mapping[str, Any],
    *,
    image: str | None,
    env: Sequence[str],
    annotations: Sequence[str],
    fields: Mapping[str, int | None],
    resources: Mapping[str, Sequence[str]],
) -> None:
    """
    Change a Service's template.

    Args:
        body: The Service.
        image: Replaces the present image.
        env: `NAME=VALUE` and `NAME-`.
        annotations: `KEY=VALUE` and `KEY-`.
        fields: Numbers of the template's spec; None leaves one as it is.
        resources: `NAME=AMOUNT` under `requests` and `limits`, several with commas between them.
    """
    template = body["spec"]["template"]
    metadata = dict(template.get("metadata") or {})
    set_entries(metadata, "annotations", annotations)
    if metadata:
        template["metadata"] = metadata
    template["spec"].update({name: value for name, value in fields.items() if value is not None})
    if image:
        container(body)["image"] = image
    set_env(body, env)
    for kind, changes in resources.items():
        if changes:
            container(body)["resources"] = dict(container(body).get("resources") or {})
            set_entries(container(body)["resources"], kind, ",".join(changes).split(","))


def override(services: Sequence[Resource], change: str) -> None:
    """
    Set a variable as if the manifests set it: `[SERVICE:]NAME=VALUE` or `[SERVICE:]NAME-`.

    Raises:
        ManifestError: The Service does not exist.
        EditError: *change* has neither form.
    """
    name, _, _ = change.partition("=")[0].rpartition(":")
    chosen = [service for service in services if name in {"", service.name}]
    if not chosen:
        raise ManifestError([f"{change}: there is no Service {name}"])
    for service in chosen:
        set_env(service.body, [change.removeprefix(f"{name}:")])


def set_env(body: Mapping[str, Any], changes: Iterable[str]) -> None:
    """Set variables (`NAME=VALUE`) in place or at the end, and drop others (`NAME-`)."""
    variables = {entry["name"]: entry for entry in container(body).get("env") or []}
    for name, value in assignments(changes):
        if value is None:
            variables.pop(name, None)
        else:
            variables[name] = {"name": name, "value": value}
    if variables or "env" in container(body):
        container(body)["env"] = list(variables.values())


def set_entries(owner: dict[str, Any], field: str, changes: Iterable[str]) -> None:
    """Set entries (`KEY=VALUE`) of a mapping of text in *owner*, and drop others (`KEY-`)."""
    mapping = dict(owner.get(field) or {}) | dict(assignments(changes))
    if mapping:
        owner[field] = {key: value for key, value in mapping.items() if value is not None}


def assignments(changes: Iterable[str]) -> list[tuple[str, str | None]]:
    """
    Parse `NAME=VALUE` and `NAME-`.

    Raises:
        EditError: A change has neither form.
    """
    result: list[tuple[str, str | None]] = []
    for change in changes:
        name, separator, value = change.partition("=")
        if separator and name:
            result.append((name, value))
        elif change.endswith("-") and len(change) > 1:
            result.append((change[:-1], None))
        else:
            raise EditError(f"{change!r} is neither NAME=VALUE nor NAME-")
    return result


def traffic(
    service: Mapping[str, Any], *, tags: Sequence[str], untags: Sequence[str], shares: Sequence[str], mutation: bool
) -> list[dict[str, Any]]:
    """
    Compute `spec.traffic`: first untag, then tag, then shares, which replace all former ones.

    Args:
        service: The Service with its status.
        tags: `REVISION=TAG`; REVISION may be @latest.
        untags: Tags to remove.
        shares: `REF=PERCENT`, REF a revision, a tag or @latest; where they miss 100, the one target left out
            gets the rest.
        mutation: Whether the same update makes a new revision.

    Raises:
        EditError: kn would refuse the change.
    """
    targets = [dict(target) for target in service["spec"].get("traffic") or LATEST]
    for tag in untags:
        target = _find(targets, tag=tag)
        if target is None:
            raise EditError(f"tag(s) {tag} not present for any revisions of service {service['metadata']['name']}")
        target.pop("tag")
    for revision, tag in _pairs(tags, flag="--tag"):
        _tag(targets, revision, tag)
    if shares:
        percents = _shares(service, shares, mutation=mutation)
        for target in targets:
            target["percent"] = 0
        for ref, percent in percents.items():
            found = _find(targets, tag=ref) or _find(targets, **_reference(ref))
            if found is None:
                targets.append(found := _reference(ref))
            found["percent"] = percent
    return [target for target in targets if target.get("tag") or target.get("percent")]


def _tag(targets: list[dict[str, Any]], revision: str, tag: str) -> None:
    target = _find(targets, **_reference(revision))
    held = target.get("tag") if target is not None else None
    if held == tag:
        return
    for taken in [tag] if _find(targets, tag=tag) else [held] if held and revision == _LATEST_REF else []:
        raise EditError(f"refusing to overwrite existing tag in service, add flag '--untag {taken}' to untag it")
    if target is None or held:
        targets.append(target := {**_reference(revision), "percent": 0})
    target["tag"] = tag


def _shares(service: Mapping[str, Any], shares: Sequence[str], *, mutation: bool) -> dict[str, int]:
    percents: dict[str, int] = {}
    for ref, text in _pairs(shares, flag="--traffic"):
        number = text.removesuffix("%")
        if not number.isdigit() or int(number) > 100:
            raise EditError(f"invalid value for traffic percent {text}, expected 0 <= percent <= 100")
        percents[ref] = int(number)
    rest, current = 100 - sum(percents.values()), service.get("status", {}).get("traffic", [])
    left_out = [t["revisionName"] for t in current if not {t["revisionName"], t.get("tag")} & set(percents)]
    if rest < 0:
        raise EditError(f"given traffic percents sum to {100 - rest}, want <=100")
    if rest and mutation and _LATEST_REF not in percents and len(percents) == len(current):
        percents[_LATEST_REF] = rest
    elif rest and not mutation and len(left_out) == 1 and len(percents) == len(current) - 1:
        percents[left_out[0]] = rest
    elif rest:
        reason = "incorrect number of revisions specified. Only 1 revision should be missing"
        raise EditError(f"unable to allocate the remaining traffic: {rest}%. Reason: {reason}")
    return percents


def _pairs(values: Sequence[str], *, flag: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for value in ",".join(values).split(",") if values else ():
        ref, separator, right = value.rpartition("=")
        if separator and not (ref and right):
            raise EditError(f"expecting the value format in value1=value2, given {value}")
        if (ref := ref or _LATEST_REF) in {known for known, _ in pairs} and (flag == "--traffic" or ref == _LATEST_REF):
            raise EditError(f"repetition of {ref} is not allowed, use only once with {flag} flag")
        pairs.append((ref, right))
    return pairs


def _reference(ref: str) -> dict[str, Any]:
    return {"latestRevision": True} if ref == _LATEST_REF else {"revisionName": ref}


def _find(targets: Sequence[dict[str, Any]], **fields: Any) -> dict[str, Any] | None:
    return next((t for t in targets if all(t.get(name) == value for name, value in fields.items())), None)
