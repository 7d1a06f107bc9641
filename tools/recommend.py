"""`./run.sh recommend USER`: ask the running pipeline and show titles beside the ids."""

import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import msgspec

from localkn.address import chosen_url
from offline.state import StateDirectory, StateError
from recrank.artefact import ITEMS, Item

_PORT = 8080


def recommend(
    *,
    user: str,
    top_k: int = 5,
    context: Sequence[str] | None = None,
    port: int | None = None,
    url: str | None = None,
    state_dir: Path,
) -> int:
    """Print the recommendations for one user; return the exit status."""
    address = chosen_url(state_dir / "platform", url=url, port=port, default_port=_PORT)
    try:
        body = {"user_id": user, "top_k": top_k, **({"context": parse_context(context)} if context else {})}
        answer = _ask(address, body, authority=state_dir / "tls/ca.pem")
    except httpx.TransportError:
        print(f"{address}: nothing answers there; start the pipeline with ./run.sh up", file=sys.stderr)
        return 1
    try:
        body = answer.json()
        if answer.status_code != httpx.codes.OK:
            faults = "; ".join(f"{fault['path']} {fault['detail']}" for fault in body.get("errors", ()))
            print(f"{answer.status_code}: {faults or body.get('detail') or body.get('title')}", file=sys.stderr)
            return 1
        ranked = body["recommendations"]
    except (ValueError, LookupError, TypeError, AttributeError):
        print(f"{address}: status {answer.status_code}, but what answers is not the pipeline", file=sys.stderr)
        return 1
    catalogue = _catalogue(state_dir)
    for place, each in enumerate(ranked, 1):
        item = catalogue.get(each["item_id"], Item(each["item_id"]))
        shown = f"{item.title} ({item.category})" if item.category else item.title
        print(f"{place:3}  {each['score']:7.3f}  {item.item_id:10} {shown}".rstrip())
    return 0


def parse_context(pairs: Sequence[str]) -> dict[str, str | float]:
    """Return the values of `NAME=VALUE` by name: a JSON number or a JSON string as such, and other text as it is."""
    return {name: _value(text) for name, _, text in (pair.partition("=") for pair in pairs)}


def _value(text: str) -> str | float:
    try:
        return msgspec.json.decode(text, type=str | float)
    except msgspec.DecodeError:
        return text


def _ask(url: str, body: Mapping[str, object], *, authority: Path) -> httpx.Response:
    own = authority if url.startswith("https://127.") and authority.is_file() else None
    trust = ssl.create_default_context(cafile=own)
    return httpx.post(url, json=body, timeout=10, verify=trust)


def _catalogue(folder: Path) -> dict[str, Item]:
    """Return what is known of the items; nothing where the pipeline at the URL is not the one of this directory."""
    try:
        state = StateDirectory(folder)
        current = state.current()
        content = (state.model_path(current) / ITEMS).read_bytes() if current else b"[]"
        return {item.item_id: item for item in msgspec.json.decode(content, type=list[Item])}
    except (StateError, OSError, msgspec.MsgspecError):
        return {}
