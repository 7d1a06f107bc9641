"""The verbs for events: show the queues of the broker, and redeliver dead letters."""

import argparse
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from localkn import control
from localkn.errors import RefusedError, UsageError

_REASON_LENGTH = 160


def add_verbs(parser: argparse.ArgumentParser) -> None:
    """Add the flags and the subcommand of `events` to its parser."""
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.set_defaults(verb=_show)
    redrive = parser.add_subparsers(metavar="VERB").add_parser("redrive", help="redeliver dead letters")
    redrive.add_argument("id", nargs="*", help="ids of events")
    redrive.add_argument("--all", action="store_true", help="all of them")
    redrive.add_argument("--trigger", metavar="[NAMESPACE/]NAME", help="dead letters of one Trigger")
    redrive.add_argument("--source", help="dead letters of one source: an id is unique within its source only")
    redrive.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="for machines")
    redrive.set_defaults(verb=_redrive)


def _show(arguments: argparse.Namespace) -> None:
    figures = control.call(arguments.state_dir.socket("control"), "events")
    print(json.dumps(figures, indent=2) if arguments.json else "\n".join(_lines(figures)))


def _redrive(arguments: argparse.Namespace) -> None:
    if not (arguments.id or arguments.all or arguments.trigger or arguments.source):
        raise UsageError("events redrive: name dead letters by their ids, --trigger NAME, --source URI or --all")
    name = arguments.trigger
    trigger = f"default/{name}" if name and "/" not in name else name
    chosen = {"trigger": trigger, "ids": arguments.id or None, "source": arguments.source}
    answer = control.call(arguments.state_dir.socket("control"), "redrive", **chosen)
    count, unknown = answer["redriven"], answer["unknown"]
    if arguments.json or count:
        print(json.dumps(answer) if arguments.json else f"dead letters sent again: {count}")
    if unknown:
        raise RefusedError(f"no dead letter has the id {', '.join(unknown)}; `events` lists them")
    if not count:
        raise RefusedError("no dead letter matches; `events` lists them")


def _lines(figures: Mapping[str, Any]) -> Iterator[str]:
    for broker, accepted in figures["brokers"].items():
        yield f"Broker {broker}: {accepted} accepted"
    yield f"deliveries: {figures['waiting']} of {figures['limit']} waiting, {figures['under_way']} under way"
    if not figures["has_room"]:
        yield "the disk is full: no events are accepted until there is room"
    if figures["unwanted"]:
        yield f"dropped, because no Trigger matches: {figures['unwanted']}"
    for name, trigger in figures["triggers"].items():
        oldest = f", the oldest for {trigger['oldest_s']:.1f} s" if trigger["oldest_s"] is not None else ""
        yield f"Trigger {name} -> {trigger['subscriber']}"
        yield f"    delivered: {trigger['delivered']}, failed attempts: {trigger['failed']}, dead letters: {trigger['dead']}"
        yield f"    waiting: {trigger['waiting']}, {trigger['retrying']} of them after a failure{oldest}"
    for letter in figures["dead_letters"]:
        event, failure = letter["event"], letter["failure"]
        died = datetime.fromtimestamp(letter["at"], UTC).isoformat(timespec="seconds")
        yield f"dead letter {event['id']} ({event['type']} of {event['source']}) of {letter['trigger']}, {died}"
        yield f"    {failure['destination']} answered {failure['code']}: {failure['reason'][:_REASON_LENGTH]}".rstrip()
