"""kn's verbs for Services and revisions, with kn's names and flags, on a platform of this machine."""

import argparse
import copy
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

from kubeyaml import edits
from kubeyaml.annotations import SCALING
from kubeyaml.errors import EditError
from localkn import control
from localkn.errors import RefusedError

# Flags that set an annotation of the template.
_SCALING = {
    "scale_min": "min-scale", "scale_max": "max-scale", "scale_init": "initial-scale", "scale_target": "target",
    "scale_activation": "activation-scale", "scale_metric": "metric", "scale_window": "window",
    "scale_utilization": "target-utilization-percentage",
}  # fmt: skip
_REPEATED = ("--annotation-service", "--annotation-revision", "--request", "--limit", "--tag", "--untag", "--traffic")
_TEMPLATE = (
    *_SCALING, "image", "env", "annotation", "annotation_service", "annotation_revision", "request", "limit", "concurrency_limit", "timeout",
)  # fmt: skip
_NO_SCALE = ".."
_GROUP, _GROUP_OF_KN = "serving.knative.dev", "client.knative.dev"


def add_verbs(parser: argparse.ArgumentParser) -> None:
    """Add `service update|list|describe` and `revision list|describe` to a parser of `kn`."""
    nouns = parser.add_subparsers(dest="noun", required=True, metavar="service|revision")
    for noun in ("service", "revision"):
        verbs = nouns.add_parser(noun).add_subparsers(required=True, metavar="VERB")
        for name, described in (("list", False), ("describe", True)):
            verb = verbs.add_parser(name)
            if described:
                verb.add_argument("name")
            if noun == "revision":
                verb.add_argument("-s", "--service", help="revisions of this Service only")
            verb.add_argument("-o", "--output", choices=["json", "yaml", "name", "url"])
            verb.set_defaults(verb=_show, described=described, service=None)
        if noun == "service":
            _add_update(verbs.add_parser("update", help="change a Service; a changed template makes a new revision"))


def _add_update(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    for flag in ("--image", "--revision-name", *(f"--{name.replace('_', '-')}" for name in _SCALING)):
        parser.add_argument(flag)
    for flag in ("--concurrency-limit", "--timeout"):
        parser.add_argument(flag, type=int)
    for flags in (("-e", "--env"), ("-a", "--annotation"), *((flag,) for flag in _REPEATED)):
        parser.add_argument(*flags, action="append", default=[])
    parser.add_argument("--scale", default=_NO_SCALE, metavar="MIN..MAX")
    parser.add_argument("--no-wait", action="store_true")
    parser.add_argument("--wait-timeout", type=int, default=600)
    parser.set_defaults(verb=_update)


def _update(arguments: argparse.Namespace) -> None:
    name, place = arguments.name, arguments.state_dir.socket("control")
    service = _named(control.call(place, "services"), name, noun="service")
    changed = copy.deepcopy(service)
    _edit_template(changed, arguments)
    edits.set_entries(changed["metadata"], "annotations", _of_service(arguments))
    mutation = _changes_template(arguments)
    if mutation:
        # kn notes the time of every update of the template, so that a repeated value makes a revision as well.
        moment = f"{_GROUP_OF_KN}/updateTimestamp={datetime.now(UTC).isoformat()}"
        edits.set_entries(changed["spec"]["template"].setdefault("metadata", {}), "annotations", [moment])
        # A changed template needs another name; without a name the platform numbers it.
        metadata = dict(changed["spec"]["template"].pop("metadata", None) or {}, name=arguments.revision_name)
        changed["spec"]["template"]["metadata"] = {key: value for key, value in metadata.items() if value}
    if arguments.tag or arguments.untag or arguments.traffic:
        changed["spec"]["traffic"] = edits.traffic(
            changed, tags=arguments.tag, untags=arguments.untag, shares=arguments.traffic, mutation=mutation
        )
    print(f"Updating Service '{name}' in namespace '{service['metadata']['namespace']}':", flush=True)
    if changed == service:
        print("No new revision has been created.")
        return
    described = {key: value for key, value in changed.items() if key != "status"}
    wait_s = 0 if arguments.no_wait else arguments.wait_timeout
    control.call(place, "apply", service=described, wait_s=wait_s, timeout_s=wait_s + 60)
    now = _named(control.call(place, "services"), name, noun="service")["status"]
    print(f"Service '{name}' updated to latest revision '{now['latestReadyRevisionName']}' is available at URL:")
    print(now["url"])


def _changes_template(arguments: argparse.Namespace) -> bool:
    """Tell whether a flag is given that makes kn change the template; an annotation of the Service is one of them."""
    return arguments.scale != _NO_SCALE or any(getattr(arguments, name) not in (None, []) for name in _TEMPLATE)


def _edit_template(service: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    for each in (*arguments.annotation_revision, *arguments.annotation_service):
        if each.endswith("-") and "=" not in each:
            raise EditError(f"{each!r} does not name an annotation; kn removes one with --annotation {each}")
    edits.change_template(
        service,
        image=arguments.image,
        env=arguments.env,
        annotations=[*arguments.annotation, *arguments.annotation_revision, *_scaling(arguments)],
        fields={"containerConcurrency": arguments.concurrency_limit, "timeoutSeconds": arguments.timeout},
        resources={"requests": arguments.request, "limits": arguments.limit},
    )


def _of_service(arguments: argparse.Namespace) -> list[str]:
    """Return the annotations of the Service: those of `--annotation` too, without the ones for scaling."""
    for each in arguments.annotation_service:
        if each.startswith(SCALING):
            raise EditError(f"service can not have auto-scaling related annotation: {each}, use --annotation-revision")
    return [*(each for each in arguments.annotation if not each.startswith(SCALING)), *arguments.annotation_service]


def _scaling(arguments: argparse.Namespace) -> list[str]:
    """Return the annotations of the scaling flags."""
    values = {key: getattr(arguments, name) for name, key in _SCALING.items()}
    low, separator, high = arguments.scale.partition("..")
    for flag, value in (("min-scale", low), ("max-scale", high if separator else low)):
        if value:
            if not value.isdigit():
                raise EditError("Scale must be of the format x..y or x")
            if arguments.scale_min or arguments.scale_max:
                raise EditError("only one of --scale and --scale-min or --scale-max can be specified")
            values[flag] = value
    return [f"{SCALING}/{key}={value}" for key, value in values.items() if value]


def _named(items: Sequence[dict[str, Any]], name: str, *, noun: str) -> dict[str, Any]:
    found = next((item for item in items if item["metadata"]["name"] == name), None)
    if found is None:
        raise RefusedError(f'{noun}s.{_GROUP} "{name}" not found')
    return found


def _show(arguments: argparse.Namespace) -> None:
    """List or describe: as objects, as a table, or as labelled fields."""
    place = arguments.state_dir.socket("control")
    services = control.call(place, "services")
    items = services if arguments.noun == "service" else control.call(place, "revisions")
    if arguments.service:
        items = [item for item in items if item["metadata"]["labels"][f"{_GROUP}/service"] == arguments.service]
    if arguments.described:
        items = [_named(items, arguments.name, noun=arguments.noun)]
    if arguments.output:
        _print(items if not arguments.described else items[0], arguments.output, noun=arguments.noun)
        return
    targets = [target for service in services for target in service["status"]["traffic"]]
    rows = [_service_row(item) if arguments.noun == "service" else _revision_row(item, targets) for item in items]
    if arguments.described:
        for label, value in rows[0].items():
            print(f"{label.capitalize() + ':':<14}{value}".rstrip())
        return
    table = [list(rows[0]) if rows else [], *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print("   ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def _service_row(item: Mapping[str, Any]) -> dict[str, str]:
    shown = item["status"]
    traffic = (
        f"{t['percent']}% {'@latest ' * t['latestRevision']}({t['revisionName']})"
        + (f" #{t['tag']}" if "tag" in t else "")
        for t in shown["traffic"]
    )
    row = {"NAME": item["metadata"]["name"], "URL": shown["url"], "LATEST": shown["latestReadyRevisionName"] or ""}
    return row | {"TRAFFIC": ", ".join(traffic)} | _readiness(item)


def _revision_row(item: Mapping[str, Any], targets: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    own = [target for target in targets if target["revisionName"] == item["metadata"]["name"]]
    labels, percent = item["metadata"]["labels"], sum(target["percent"] for target in own)
    row = {"NAME": item["metadata"]["name"], "SERVICE": labels[f"{_GROUP}/service"]}
    row |= {"TRAFFIC": f"{percent}%" if percent else "", "TAGS": ",".join(t["tag"] for t in own if "tag" in t)}
    row |= {"GENERATION": labels[f"{_GROUP}/configurationGeneration"]}
    row |= {"REPLICAS": f"{item['status']['actualReplicas']}/{item['status']['desiredReplicas']}"}
    return row | _readiness(item)


def _readiness(item: Mapping[str, Any]) -> dict[str, str]:
    condition = item["status"]["conditions"][0]
    return {"READY": condition["status"], "REASON": condition.get("message", "").partition("\n")[0]}


def _print(shown: Any, output: str, *, noun: str) -> None:
    items = shown if isinstance(shown, list) else [shown]
    if output in {"json", "yaml"}:
        kind = f"{noun.capitalize()}List"
        whole = {"apiVersion": f"{_GROUP}/v1", "kind": kind, "items": shown} if items is shown else shown
        print(json.dumps(whole, indent=4)) if output == "json" else yaml.safe_dump(whole, sys.stdout, sort_keys=False)
        return
    for item in items:
        name = f"{item['kind'].lower()}.{_GROUP}/{item['metadata']['name']}"
        print(item["status"].get("url", "") if output == "url" else name)
