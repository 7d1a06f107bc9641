"""`./run.sh send-event`: hand one event to the running pipeline's broker."""

import json
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec

from chassis.wire import cloudevents
from chassis.wire.cloudevents import CloudEvent
from chassis.wire.problems import Fault
from localkn.address import broker_url
from localkn.errors import LocalknError
from recsys.contracts import events


class _Problem(msgspec.Struct):
    title: str
    detail: str = ""
    errors: list[Fault] = []


def send_event(
    *,
    user: str,
    kind: str,
    item: str,
    exposure: str | None = None,
    type_: str,
    source: str,
    id_: str | None = None,
    subject: str | None = None,
    data: str | None = None,
    broker: str = "default",
    url: str | None = None,
    as_json: bool = False,
    state_dir: Path,
) -> int:
    """Send the event that the options describe; return the exit status."""
    interaction: dict[str, Any] = {"user_id": user}
    if type_ == events.INTERACTION:
        interaction |= {"kind": kind} | ({} if kind == "session_end" else {"item_id": item})
        interaction |= {"exposure_id": exposure} if exposure else {}
    try:
        event = CloudEvent(
            id=id_ or str(uuid.uuid4()),
            source=source,
            type=type_,
            subject=subject or (user if data is None else None),
            time=datetime.now(UTC),
            data=(data or json.dumps(interaction)).encode(),
        )
        url = url or broker_url(state_dir / "platform", broker)
        answer = httpx.post(url, headers=cloudevents.write_binary(event), content=event.data, timeout=10)
    except LocalknError as error:
        print(error, file=sys.stderr)
        return 1
    except httpx.TransportError:
        print(f"{url}: nothing answers there", file=sys.stderr)
        return 1
    if as_json:
        sent = {"id": event.id, "source": event.source, "type": event.type, "subject": event.subject}
        print(json.dumps({**sent, "url": url, "status": answer.status_code, "reason": _reason(answer.text)}))
    elif answer.is_success:
        print(f"{event.type} {event.id} is accepted")
    else:
        print(f"{answer.status_code}: {_reason(answer.text)}", file=sys.stderr)
    return 0 if answer.is_success else 1


def _reason(text: str) -> str:
    """Return the reasons in the problem document *text*, or any other *text* unchanged."""
    try:
        problem = msgspec.json.decode(text, type=_Problem)
    except msgspec.DecodeError:
        return text.strip()
    return "; ".join(map(str, problem.errors)) or problem.detail or problem.title
