"""`./run.sh recommend USER`: ask the running pipeline and show titles beside the ids."""

import argparse
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import msgspec

from localkn import control
from localkn.errors import LocalknError
from localkn.state import StateDirectory as PlatformState
from offline.state import StateDirectory, StateError
from recsys.ranking.artefact import ITEMS, Item


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the recommendations for one user; return the exit status."""
    parser = argparse.ArgumentParser(prog="./run.sh recommend", description=__doc__)
    parser.add_argument("user")
    parser.add_argument("--top-k", type=int, default=5)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--url", help="of a pipeline elsewhere")
    parser.add_argument("--state-dir", type=Path, default=Path(".recsys"))
    options = parser.parse_args(arguments)
    url = options.url or running_url(options.state_dir) or f"http://127.0.0.1:{options.port}"
    authority = options.state_dir / "tls/ca.pem"
    trust = ssl.create_default_context(cafile=authority if url.startswith("https://127.") else None)
    try:
        answer = httpx.post(url, json={"user_id": options.user, "top_k": options.top_k}, timeout=10, verify=trust)
    except httpx.TransportError:
        print(f"nothing answers at {url}; start the pipeline with ./run.sh up", file=sys.stderr)
        return 1
    body = answer.json()
    if answer.status_code != httpx.codes.OK:
        faults = "; ".join(f"{fault['path']} {fault['detail']}" for fault in body.get("errors", ()))
        print(f"{answer.status_code}: {faults or body.get('detail') or body.get('title')}", file=sys.stderr)
        return 1
    catalogue = _catalogue(options.state_dir)
    for place, each in enumerate(body["recommendations"], 1):
        item = catalogue.get(each["item_id"], Item(each["item_id"]))
        shown = f"{item.title} ({item.category})" if item.category else item.title
        print(f"{place:3}  {each['score']:7.3f}  {item.item_id:10} {shown}".rstrip())
    return 0


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
