"""kn's verbs for Services and revisions, with kn's names and flags, on a platform of this machine."""

import argparse
import copy
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from localkn import control, edits
from localkn.errors import RefusedError
from localkn.state import StateDirectory

# Flag, and the annotation of the template it sets.
_ANNOTATION_FLAGS = {
    "--scale-min": "min-scale",
    "--scale-max": "max-scale",
    "--scale-init": "initial-scale",
    "--scale-activation": "activation-scale",
    "--scale-target": "target",
    "--scale-metric": "metric",
    "--scale-utilization": "target-utilization-percentage",
    "--scale-window": "window",
}


def add_verbs(parser: argparse.ArgumentParser) -> None:
    """Add `service update|list|describe` and `revision list|describe` to a parser of `kn`."""
    nouns = parser.add_subparsers(required=True, metavar="service|revision")
    service = nouns.add_parser("service", help="Services").add_subparsers(required=True, metavar="VERB")
    _add_update(service.add_parser("update", help="change a Service; a changed template makes a new revision"))
    _add_show(service.add_parser("list", help="list Services"), _list_services)
    _add_show(service.add_parser("describe", help="show a Service"), _describe_service, named=True)
    revision = nouns.add_parser("revision", help="revisions").add_subparsers(required=True, metavar="VERB")
    listing = revision.add_parser("list", help="list revisions")
    listing.add_argument("-s", "--service", help="of this Service only")
    _add_show(listing, _list_revisions)
    _add_show(revision.add_parser("describe", help="show a revision"), _describe_revision, named=True)


def _add_show(parser: argparse.ArgumentParser, verb: Callable[..., None], *, named: bool = False) -> None:
    if named:
        parser.add_argument("name")
    parser.add_argument("-o", "--output", choices=["json", "yaml", "name", "url"])
    parser.set_defaults(verb=verb)


def _add_update(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("--image")
    parser.add_argument("--scale", metavar="MIN..MAX")
    for flag in _ANNOTATION_FLAGS:
        parser.add_argument(flag)
    for flag in ("--concurrency-limit", "--timeout"):
        parser.add_argument(flag, type=int)
    repeated = ("--annotation-service", "--request", "--limit", "--tag", "--untag", "--traffic")
    for flags in (("-e", "--env"), ("-a", "--annotation", "--annotation-revision"), *((flag,) for flag in repeated)):
        parser.add_argument(*flags, action="append", default=[])
    parser.add_argument("--revision-name")
    parser.add_argument("--no-wait", action="store_true")
    parser.add_argument("--wait-timeout", type=int, default=600)
    parser.set_defaults(verb=_update)


def _update(arguments: argparse.Namespace) -> None:
    name = arguments.name
    service = _service(arguments.state_dir, name)
    changed = copy.deepcopy(service)
    _edit_template(changed["spec"]["template"], arguments)
    edits.set_entries(changed["metadata"], "annotations", arguments.annotation_service)
    mutation = changed["spec"]["template"] != service["spec"]["template"]
    if mutation:
        # A template's own name has to change with it; without one the platform counts.
        metadata = dict(changed["spec"]["template"].pop("metadata", None) or {}, name=arguments.revision_name)
        changed["spec"]["template"]["metadata"] = {key: value for key, value in metadata.items() if value}
    if arguments.tag or arguments.untag or arguments.traffic:
        changed["spec"]["traffic"] = edits.traffic(
            changed, tags=arguments.tag, untags=arguments.untag, shares=arguments.traffic, mutation=mutation
        )
    if changed == service:
        print(
            f"Service '{name}' updated in namespace '{service['metadata']['namespace']}'.\nNo new revision has been created."
        )
        return
    print(f"Updating Service '{name}' in namespace '{service['metadata']['namespace']}':", flush=True)
    control.call(
        arguments.state_dir.socket("control"),
        "apply",
        service={key: value for key, value in changed.items() if key != "status"},
        wait_s=0 if arguments.no_wait else arguments.wait_timeout,
    )
    now = _service(arguments.state_dir, name)["status"]
    print(
        f"Service '{name}' updated to latest revision '{now['latestCreatedRevisionName']}' is available at URL:\n{now['url']}"
    )


def _edit_template(template: dict[str, Any], arguments: argparse.Namespace) -> None:
    if arguments.scale:
        low, _, high = (
            arguments.scale.partition("..") if ".." in arguments.scale else (arguments.scale, "", arguments.scale)
        )
        arguments.scale_min, arguments.scale_max = low or arguments.scale_min, high or arguments.scale_max
    values = {key: getattr(arguments, flag[2:].replace("-", "_")) for flag, key in _ANNOTATION_FLAGS.items()}
    scaling = [f"autoscaling.knative.dev/{key}={value}" for key, value in values.items() if value is not None]
    metadata = dict(template.get("metadata") or {})
    edits.set_entries(metadata, "annotations", [*arguments.annotation, *scaling])
    if metadata:
        template["metadata"] = metadata
    pod = template["spec"]
    for field, value in (("containerConcurrency", arguments.concurrency_limit), ("timeoutSeconds", arguments.timeout)):
        if value is not None:
            pod[field] = value
    body = {"spec": {"template": template}}
    container = edits.container(body)
    if arguments.image:
        container["image"] = arguments.image
    edits.set_env(body, arguments.env)
    for kind, changes in (("requests", arguments.request), ("limits", arguments.limit)):
        if changes:
            container["resources"] = dict(container.get("resources") or {})
            edits.set_entries(container["resources"], kind, ",".join(changes).split(","))


def _service(state: StateDirectory, name: str) -> dict[str, Any]:
    return _named(control.call(state.socket("control"), "services"), name, noun="service")


def _named(objects: Sequence[dict[str, Any]], name: str, *, noun: str) -> dict[str, Any]:
    found = next((item for item in objects if item["metadata"]["name"] == name), None)
    if found is None:
        raise RefusedError(f'{noun}s.serving.knative.dev "{name}" not found')
    return found


def _list_services(arguments: argparse.Namespace) -> None:
    services = control.call(arguments.state_dir.socket("control"), "services")
    _show_list(services, arguments.output, ("NAME", "URL", "LATEST", "READY", "REASON"), lambda item: (
        item["metadata"]["name"], item["status"]["url"], item["status"]["latestReadyRevisionName"] or "", *_ready(item)
    ))  # fmt: skip


def _list_revisions(arguments: argparse.Namespace) -> None:
    path = arguments.state_dir.socket("control")
    revisions = control.call(path, "revisions", service=arguments.service)
    targets = [target for item in control.call(path, "services") for target in item["status"]["traffic"]]
    _show_list(revisions, arguments.output, ("NAME", "SERVICE", "TRAFFIC", "TAGS", "GENERATION", "READY", "REASON"), lambda item: (
        item["metadata"]["name"],
        item["metadata"]["labels"]["serving.knative.dev/service"],
        _percent(item, targets),
        ",".join(t["tag"] for t in targets if t["revisionName"] == item["metadata"]["name"] and "tag" in t),
        item["metadata"]["labels"]["serving.knative.dev/configurationGeneration"],
        *_ready(item),
    ))  # fmt: skip


def _describe_service(arguments: argparse.Namespace) -> None:
    item = _service(arguments.state_dir, arguments.name)
    if arguments.output:
        _print_object(item, arguments.output)
        return
    lines = {"Name": item["metadata"]["name"], "Namespace": item["metadata"]["namespace"], "URL": item["status"]["url"]}
    for target in item["status"]["traffic"]:
        at_latest = "@latest " if target["latestRevision"] else ""
        tag = f" #{target['tag']} {target['url']}" if "tag" in target else ""
        lines[f"  {target['percent']}%"] = f"{at_latest}({target['revisionName']}){tag}"
    _print_lines(lines, item)


def _describe_revision(arguments: argparse.Namespace) -> None:
    item = _named(control.call(arguments.state_dir.socket("control"), "revisions"), arguments.name, noun="revision")
    if arguments.output:
        _print_object(item, arguments.output)
        return
    container = item["spec"]["containers"][0]
    replicas = f"{item['status']['actualReplicas']}/{item['status']['desiredReplicas']}"
    lines = {"Name": item["metadata"]["name"], "Image": container["image"], "Replicas": replicas}
    for variable in container.get("env") or []:
        lines[f"  {variable['name']}"] = variable.get("value") or ""
    _print_lines(lines, item)


def _print_lines(lines: Mapping[str, str], item: Mapping[str, Any]) -> None:
    condition = item["status"]["conditions"][0]
    for label, value in {**lines, "Ready": condition["status"], "Reason": condition.get("message", "")}.items():
        print(f"{label + ':':<14}{value}".rstrip())


def _ready(item: Mapping[str, Any]) -> tuple[str, str]:
    condition = item["status"]["conditions"][0]
    return condition["status"], condition.get("message", "").partition("\n")[0]


def _percent(item: Mapping[str, Any], targets: Sequence[Mapping[str, Any]]) -> str:
    total = sum(t["percent"] for t in targets if t["revisionName"] == item["metadata"]["name"])
    return f"{total}%" if total else ""


def _show_list(
    items: Sequence[dict[str, Any]], output: str | None, header: Sequence[str], row: Callable[[Any], Sequence[str]]
) -> None:
    if output in {"json", "yaml"}:
        _print_object({"apiVersion": "v1", "kind": "List", "items": items}, output)
    elif output:
        for item in items:
            _print_object(item, output)
    else:
        rows = [header, *(row(item) for item in items)]
        widths = [max(len(cells[i]) for cells in rows) for i in range(len(header))]
        for cells in rows:
            print("   ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def _print_object(item: Mapping[str, Any], output: str) -> None:
    if output == "json":
        print(json.dumps(item, indent=4))
    elif output == "yaml":
        yaml.safe_dump(item, sys.stdout, sort_keys=False)
    elif output == "url":
        print(item["status"].get("url", ""))
    else:
        print(f"{item['kind'].lower()}.serving.knative.dev/{item['metadata']['name']}")
