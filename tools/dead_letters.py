"""`./run.sh dead-letters`: list the undeliverable events that a cluster keeps, and send them again."""

import json
import sys
from base64 import b64decode
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

_TIMEOUT_S = 10.0
_BROKER_HOST = "broker-ingress.knative-eventing.svc.cluster.local"
# Attributes that Knative adds to a dead letter.
_ADDED = ("knativeerror",)


def run(
    *,
    action: str | None,
    ids: Sequence[str] | None,
    all_: bool,
    as_json: bool,
    namespace: str,
    gateway: str,
    broker: str | None,
) -> int:
    """
    List the letters, or send some of them to the Broker again and remove those that it accepts.

    Returns:
        0; 1 if a letter does not exist, was not accepted, or the cluster does not answer.
    """
    try:
        with httpx.Client(timeout=_TIMEOUT_S) as client:
            sink = _Sink(client, gateway, f"dead-letters.{namespace}.svc.cluster.local")
            found = list(sink.letters())
            if action is None:
                _show(found, as_json=as_json)
                return 0
            chosen = [each for each in found if all_ or each["id"] in (ids or ())]
            missing = set(ids or ()) - {each["id"] for each in chosen}
            for id_ in sorted(missing):
                print(f"{id_}: no such dead letter", file=sys.stderr)
            url = f"{(broker or '').rstrip('/')}/{namespace}/default"
            sent = [_send_again(client, sink, url, each) for each in chosen]
            print(f"{sum(sent)} of {len(chosen)} dead letters accepted by the Broker")
            return 0 if all(sent) and not missing else 1
    except httpx.HTTPStatusError as error:
        name = error.request.headers["host"]
        print(f"{name} answers {error.response.status_code}: {_reason(error.response)}", file=sys.stderr)
        return 1
    except httpx.HTTPError as error:
        print(f"{gateway}: {str(error) or type(error).__name__}; is the port-forward open?", file=sys.stderr)
        return 1


class _Sink:
    """The Service dead-letters behind a gateway."""

    def __init__(self, client: httpx.Client, gateway: str, host: str) -> None:
        self._client, self._gateway, self._headers = client, gateway.rstrip("/"), {"host": host}

    def letters(self) -> Iterator[dict[str, Any]]:
        """Yield all letters, oldest first."""
        after = ""
        while True:
            answer = self._client.get(f"{self._gateway}/letters", params={"after": after}, headers=self._headers)
            answer.raise_for_status()
            page = answer.json()["letters"]
            yield from page
            if not page:
                return
            after = page[-1]["id"]

    def remove(self, id_: str) -> None:
        """Remove a letter."""
        self._client.delete(f"{self._gateway}/letters/{id_}", headers=self._headers).raise_for_status()


def _send_again(client: httpx.Client, sink: _Sink, url: str, letter: dict[str, Any]) -> bool:
    attributes = {name: value for name, value in letter["letter"]["attributes"].items() if not name.startswith(_ADDED)}
    headers = {"content-type": attributes.pop("datacontenttype", ""), "host": _BROKER_HOST}
    headers |= {f"ce-{name}": value for name, value in attributes.items()}
    answer = client.post(url, content=_data(letter["letter"]), headers=headers)
    if answer.is_success:
        sink.remove(letter["id"])
    else:
        print(f"{letter['id']}: the Broker answers {answer.status_code}: {answer.text[:200]}", file=sys.stderr)
    return answer.is_success


def _reason(answer: httpx.Response) -> str:
    """Return what *answer* says about its status: the sink's reason, or the gateway's text."""
    try:
        return str(answer.json()["detail"])
    except (ValueError, LookupError, TypeError):
        return answer.text[:200].strip() or answer.reason_phrase


def _data(letter: dict[str, Any]) -> bytes:
    if "data_base64" in letter:
        return b64decode(letter["data_base64"])
    return b"" if letter["data"] is None else json.dumps(letter["data"]).encode()


def _show(letters: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        for each in letters:
            print(json.dumps(each))
        return
    for each in letters:
        attributes = each["letter"]["attributes"]
        event = f"{attributes.get('type', '?')} {attributes.get('source', '?')} {attributes.get('id', '?')}"
        cause = f"{attributes.get('knativeerrorcode', '?')} from {attributes.get('knativeerrordest', '?')}"
        print(f"{each['id']}  {event}  {cause}")
    print(f"dead letters: {len(letters)}")
