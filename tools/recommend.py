"""`./run.sh recommend USER`: ask the running pipeline and show titles beside the ids."""

import argparse
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec

from localkn import control
from localkn.errors import LocalknError
from localkn.state import PlatformDirectory as PlatformState
from offline.state import StateDirectory, StateError
from recsys.ranking.artefact import ITEMS, Item

_PORT = 8080


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the recommendations for one user; return the exit status."""
    parser = argparse.ArgumentParser(prog="./run.sh recommend", description=__doc__)
    parser.add_argument("user")
    parser.add_argument("--top-k", type=int, default=5)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--port", type=int, help=f"on this machine (default: where --state-dir runs, else {_PORT})")
    where.add_argument("--url", type=url, help="of a pipeline elsewhere")
    parser.add_argument("--state-dir", type=Path, default=Path(".recsys"))
    options = parser.parse_args(arguments)
    address = _address(options)
    try:
        answer = _ask(address, user=options.user, top_k=options.top_k, authority=options.state_dir / "tls/ca.pem")
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
    catalogue = _catalogue(options.state_dir)
    for place, each in enumerate(ranked, 1):
        item = catalogue.get(each["item_id"], Item(each["item_id"]))
        shown = f"{item.title} ({item.category})" if item.category else item.title
        print(f"{place:3}  {each['score']:7.3f}  {item.item_id:10} {shown}".rstrip())
    return 0


def _address(options: argparse.Namespace) -> str:
    """Return the URL: the one given, the port given, the pipeline that runs in the state directory, in this order."""
    if options.url:
        return str(options.url)
    running = running_url(options.state_dir)
    if options.port is None:
        return running or f"http://127.0.0.1:{_PORT}"
    # The port alone does not say whether it speaks TLS; the platform of the state directory may.
    return running if running and running.endswith(f":{options.port}") else f"http://127.0.0.1:{options.port}"


def _ask(url: str, *, user: str, top_k: int, authority: Path) -> httpx.Response:
    own = authority if url.startswith("https://127.") and authority.is_file() else None
    trust = ssl.create_default_context(cafile=own)
    return httpx.post(url, json={"user_id": user, "top_k": top_k}, timeout=10, verify=trust)


def url(text: str) -> str:
    """Return *text* if it is an absolute URL; for argparse."""
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL such as http://127.0.0.1:8080")
    return text


def running_url(state_dir: Path) -> str | None:
    """Return where the pipeline of *state_dir* answers; None when it is not running."""
    try:
        status = control.call(PlatformState((state_dir / "platform").absolute()).socket("control"), "status")
    except LocalknError:
        return None
    return str(status["url"])


def _catalogue(folder: Path) -> dict[str, Item]:
    """Return what is known of the items; nothing where the pipeline at the URL is not the one of this directory."""
    try:
        state = StateDirectory(folder)
        current = state.current()
        content = (state.model_path(current) / ITEMS).read_bytes() if current else b"[]"
        return {item.item_id: item for item in msgspec.json.decode(content, type=list[Item])}
    except (StateError, OSError, msgspec.MsgspecError):
        return {}


if __name__ == "__main__":
    sys.exit(main())
