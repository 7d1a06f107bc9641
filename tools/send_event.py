"""`./run.sh send-event`: hand one event to the running pipeline's broker."""

import argparse
import json
import sys
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from chassis.wire import cloudevents
from chassis.wire.cloudevents import CloudEvent
from localkn import control
from localkn.errors import LocalknError
from localkn.state import PlatformDirectory as PlatformState
from recsys.contracts import events
from tools.recommend import url as _url


def main(arguments: Sequence[str] | None = None) -> int:
    """Send the event that the flags describe; return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.data is not None and not _is_json(options.data):
        parser.error("--data must be JSON")
    try:
        url = options.url or broker_url(options.state_dir, options.broker)
        event = _event(options)
        answer = httpx.post(url, headers=cloudevents.write_binary(event), content=event.data, timeout=10)
    except LocalknError as error:
        print(error, file=sys.stderr)
        return 1
    except httpx.TransportError:
        print(f"{url}: nothing answers there", file=sys.stderr)
        return 1
    if options.json:
        sent = {"id": event.id, "source": event.source, "type": event.type, "subject": event.subject}
        print(json.dumps({**sent, "url": url, "status": answer.status_code, "reason": answer.text.strip()}))
    elif answer.is_success:
        print(f"{event.type} {event.id} is accepted")
    else:
        print(f"{answer.status_code}: {answer.text.strip()}", file=sys.stderr)
    return 0 if answer.is_success else 1


def broker_url(state_dir: Path, broker: str) -> str:
    """
    Return where a Broker (`[NAMESPACE/]NAME`) of the running pipeline takes events.

    Raises:
        LocalknError: nothing runs, or it has no such Broker.
    """
    brokers = control.call(PlatformState((state_dir / "platform").absolute()).socket("control"), "status")["brokers"]
    name = broker if "/" in broker else f"default/{broker}"
    if name not in brokers:
        raise LocalknError(f"no Broker {name} is running; running: {', '.join(brokers) or 'none'}")
    return str(brokers[name])


def _event(options: argparse.Namespace) -> CloudEvent:
    if options.data is None:
        data: dict[str, Any] = {"user_id": options.user}
        if options.type == events.INTERACTION:
            data |= {"kind": options.kind} | ({} if options.kind == "session_end" else {"item_id": options.item})
        content, subject = json.dumps(data).encode(), options.subject or options.user
    else:
        content, subject = options.data.encode(), options.subject
    return CloudEvent(
        id=options.id or str(uuid.uuid4()),
        source=options.source,
        type=options.type,
        subject=subject,
        time=datetime.now(UTC),
        data=content,
    )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run.sh send-event", description=__doc__)
    parser.add_argument("--user", default="user_42", help="whom it is about (default: %(default)s)")
    parser.add_argument("--kind", default="view", choices=("view", "click", "purchase", "session_end"))
    parser.add_argument("--item", default="item_1", help="of an interaction (default: %(default)s)")
    parser.add_argument("--type", default=events.INTERACTION, help="of the event (default: %(default)s)")
    parser.add_argument("--source", default="/run.sh/send-event", help="default: %(default)s")
    parser.add_argument("--id", help="default: a new one; with the same source and id it is the same event")
    parser.add_argument("--subject", help="default: the user")
    parser.add_argument("--data", metavar="JSON", help="in place of what --user, --kind and --item make")
    parser.add_argument("--broker", default="default", metavar="[NAMESPACE/]NAME")
    parser.add_argument("--url", type=_url, help="of a broker elsewhere, or of a function")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--state-dir", type=Path, default=Path(".recsys"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
