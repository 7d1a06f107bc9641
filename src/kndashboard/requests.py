"""Send requests of the page's user to the public URL and to the functions of the pipeline."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import msgspec

from kndashboard.snapshots import Snapshot
from recsys.contracts.wire import MAX_HISTORY
from recsys.features import UNKNOWN_FEATURES

_WAIT_S = 15.0
_SHOWN = 10
_FACTS = ("title", "reason")


class PipelineCaller:
    """
    Calls the pipeline.

    Args:
        client: Sends the requests.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def send(self, url: str, body: bytes) -> dict[str, Any]:
        """Return status, time, receipt and body of the answer to *body*; `error` alone if there was no answer."""
        headers = {"content-type": "application/json"}
        began = time.monotonic()
        try:
            answer = await self._client.post(url, content=body, headers=headers, timeout=_WAIT_S)
        except httpx.HTTPError as error:
            return {"error": f"no answer: {str(error) or type(error).__name__}"}
        took_ms = (time.monotonic() - began) * 1000
        try:
            shown = answer.json()
        except ValueError:
            shown = answer.text
        receipt = answer.headers.get("server-timing", "")
        return {"status": answer.status_code, "took_ms": took_ms, "receipt": receipt, "body": shown}

    async def look_up(self, now: Snapshot, user_id: str, *, added: str) -> dict[str, Any]:
        """
        Return what the pipeline knows of a user, the recommendations, and those with one item more in the history.

        Args:
            now: The platform.
            user_id: The user.
            added: Id of the item that rank_items takes as the user's newest; empty for none. Nothing is stored.
        """
        addresses = {name: service["address"] for name, service in now.services.items()}
        if not {"extract-features", "rank-items"} <= addresses.keys():
            return {"problem": "this pipeline has no Services extract-features and rank-items, which know the users"}
        known, recommended = await asyncio.gather(
            self._ask(addresses["extract-features"], user_id=user_id, include=("times",)),
            self._ask(now.status["url"], user_id=user_id, top_k=_SHOWN, include=_FACTS),
        )
        found = {"known": known, "recommended": recommended}
        if not added or known.get("status") != httpx.codes.OK:
            return found
        of = known["body"]
        history = [added, *(item for item in of["history"] if item != added)][:MAX_HISTORY]
        asked = {"features": of["features"], "history": history, "top_k": _SHOWN, "include": _FACTS}
        return {**found, "added": added, "changed": await self._ask(addresses["rank-items"], **asked)}

    async def look_at(self, now: Snapshot, item_id: str) -> dict[str, Any]:
        """Return what an instance of rank_items knows of an item, and the items that resemble it."""
        if (ranking := now.services.get("rank-items")) is None:
            return {"problem": "this pipeline has no Service rank-items, which knows the items"}
        asked = {"item_id": item_id, "top_k": _SHOWN, "include": ("title", "item")}
        return await self._ask(ranking["address"], features=UNKNOWN_FEATURES, history=(), **asked)

    async def _ask(self, url: str, **request: Any) -> dict[str, Any]:
        return await self.send(url, msgspec.json.encode(request))


def item_ids(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield the ids of the items in an answer of `send`: the history, the recommendations or the ranked items."""
    body = answer.get("body")
    lists = [body.get(key) for key in ("history", "recommendations", "items")] if isinstance(body, dict) else []
    for each in (item for items in lists if isinstance(items, list) for item in items):
        item_id = each.get("item_id") if isinstance(each, dict) else each
        if isinstance(item_id, str):
            yield item_id
