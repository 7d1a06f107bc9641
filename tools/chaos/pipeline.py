"""The pipeline on this machine, as `./run.sh up` has it, on a feature store of the caller's choice."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from knbroker.client import Client
from localkn import control
from localkn.errors import LocalknError
from localkn.processes import free_port
from localkn.state import StateDirectory as PlatformState
from offline.state import StateDirectory
from recsys.stores.opening import open_store
from recsys.stores.port import UserRecord
from tools.chaos.traffic import Event
from tools.store import copy_store

_ROOT = Path(__file__).parents[2]
_LOCAL = _ROOT / "knative/overlays/local"
_TIMEOUT_S = 10.0
_PAUSE_S = 0.05


class Pipeline:
    """One that runs, on the feature store *store_url*."""

    def __init__(self, folder: Path, port: int, store_url: str) -> None:
        self._control = PlatformState(folder.absolute() / "platform").socket("control")
        self.port, self.store_url = port, store_url
        self.broker_url: str = self.status()["brokers"]["default/default"]

    def status(self) -> dict[str, Any]:
        """Return what `status --json` shows."""
        found: dict[str, Any] = control.call(self._control, "status")
        return found

    def events(self) -> dict[str, Any]:
        """Return what `events --json` shows."""
        found: dict[str, Any] = control.call(self._control, "events")
        return found

    async def until_delivered(self, *, within_s: float) -> dict[str, Any]:
        """Return the broker's figures once nothing waits; after *within_s*, as they are then."""
        for _ in range(int(within_s / _PAUSE_S)):
            try:
                figures = await asyncio.to_thread(self.events)
            except LocalknError:  # it was killed a moment ago
                figures = {"waiting": -1}
            if figures["waiting"] == 0:
                return figures
            await asyncio.sleep(_PAUSE_S)
        return await asyncio.to_thread(self.events)

    async def records(self, prefix: str) -> dict[str, UserRecord]:
        """Return what the store holds of users whose ids begin with *prefix*."""
        store = open_store(self.store_url)
        try:
            return {record.user_id: record async for record in store.scan() if record.user_id.startswith(prefix)}
        finally:
            await store.aclose()


_BROKER = "http://broker-ingress.knative-eventing.svc.cluster.local/default/default"


@contextmanager
def pipeline_running(folder: Path, *, redis_url: str | None = None, min_scale: int = 1) -> Iterator[Pipeline]:
    """
    Train where *folder* holds no model yet, and serve until the block ends.

    Args:
        folder: The state directory.
        redis_url: A Redis that gets the trained store's content and serves; None for SQLite.
        min_scale: So many instances of extract_features at least.
    """
    state = ["--state-dir", str(folder)]
    _run("offline.train", *state, "--if-missing")
    settings = _run("offline.state", *state).split()
    current = StateDirectory(folder)
    store_url = current.store_url(current.current())  # type: ignore[arg-type]  # it was trained just now
    if redis_url is not None:
        asyncio.run(_copy(store_url, redis_url))
        store_url = redis_url
        settings.append(f"extract-features:FEATURE_STORE_URL={redis_url}")
    # As components/served-events has it.
    settings.append(f"recommend:K_SINK={_BROKER}")
    port, platform = free_port(), ["--state-dir", str(folder / "platform")]
    overrides = [word for setting in settings for word in ("--env-override", setting)]
    given = ["--manifests", str(_LOCAL), "--commands", str(_LOCAL / "commands.yaml"), "--port", str(port), "--detach"]
    _run("localkn", "up", *platform, *given, *overrides)
    try:
        if min_scale > 1:
            _run("localkn", "kn", *platform, "service", "update", "extract-features", "--scale-min", str(min_scale))
        yield Pipeline(folder, port, store_url)
    finally:
        _run("localkn", "down", *platform)


class Sender:
    """
    Posts events to the broker until it has taken them.

    Attributes:
        accepted: So many times an event was.
        refused: So many times one had to be sent again.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = Client(limit_bytes=2**20)
        self.accepted = self.refused = 0

    async def send(self, event: Event) -> None:
        """
        Post *event* until the broker has it.

        Raises:
            ValueError: the broker says that it is malformed.
        """
        while not await self._posted(event):
            self.refused += 1
            await asyncio.sleep(_PAUSE_S)
        self.accepted += 1

    async def send_all(self, events: Sequence[Event], *, senders: int) -> None:
        """Post *events*, so many at a time."""
        left = iter(events)

        async def work() -> None:
            for event in left:
                await self.send(event)

        async with asyncio.TaskGroup() as group:
            for _ in range(senders):
                group.create_task(work())

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _posted(self, event: Event) -> bool:
        try:
            answer = await self._client.post(
                self._url, headers=event.headers(), body=event.body(), timeout_s=_TIMEOUT_S
            )
        except httpx.TransportError:
            return False
        if 400 <= answer.status < 500:
            raise ValueError(answer.body.decode())
        return answer.status == 202


async def _copy(source_url: str, target_url: str) -> None:
    source, target = open_store(source_url), open_store(target_url, create=True)
    try:
        await copy_store(source, target)
    finally:
        await source.aclose()
        await target.aclose()


def _run(module: str, *words: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", module, *words], cwd=_ROOT, check=False, capture_output=True, text=True
    )
    if ended.returncode:
        raise RuntimeError(f"{module} {' '.join(words[:1])}: {ended.stderr.strip()}")
    return ended.stdout
