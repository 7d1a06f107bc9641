"""Readiness, liveness and startup probes."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from localkn import httpclient

_FAST_S = 0.05
_STARTING_S = 0.2


@dataclass(frozen=True, slots=True)
class Probe:
    """
    One probe of a container: HTTP where there is a path, a TCP connection otherwise.

    While it fails it is tried every 50 ms (periodSeconds 0: Knative's aggressive probing) or 200 ms (as
    Knative's activator does), so that a start is not stretched to a multiple of the period.
    """

    path: str | None = None
    port: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    period_s: int = 0
    timeout_s: int = 1
    initial_delay_s: int = 0
    successes: int = 1
    failures: int = 3

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], *, container_port: Mapping[str, Any]) -> "Probe":
        """
        Read a probe; exec and gRPC probes become TCP probes, their commands exist in the image only.

        Args:
            spec: The probe of the manifest.
            container_port: Its container's port; a probe of that port goes to the one the instance got.
        """
        handler = spec.get("httpGet") or spec.get("tcpSocket") or {}
        own = {"", "0", str(container_port.get("containerPort", 8080)), container_port.get("name", "")}
        port = str(handler.get("port", ""))
        return cls(
            path=(handler.get("path") or "/") if spec.get("httpGet") else None,
            port=None if port in own else int(port),
            headers={header["name"]: header["value"] for header in handler.get("httpHeaders") or ()},
            period_s=spec.get("periodSeconds") or 0,
            timeout_s=spec.get("timeoutSeconds") or 1,
            initial_delay_s=spec.get("initialDelaySeconds") or 0,
            successes=spec.get("successThreshold") or 1,
            failures=spec.get("failureThreshold") or 3,
        )

    async def passes(self, port: int) -> bool:
        """Try once against the instance on *port*."""
        try:
            async with asyncio.timeout(self.timeout_s):
                if self.path is not None:
                    status, _ = await httpclient.get(self.path, port=self.port or port, headers=self.headers)
                    return 200 <= status < 400
                _, writer = await asyncio.open_connection("127.0.0.1", self.port or port)
                writer.close()
                return True
        except (OSError, TimeoutError):
            return False

    async def passes_in_time(self, port: int) -> bool:
        """Try until it passes, or has failed for failureThreshold periods; for a startup probe."""
        passed = asyncio.Event()
        watching = asyncio.create_task(self.watch(port, passing=False, changed=lambda _: passed.set()))
        try:
            async with asyncio.timeout(self.initial_delay_s + (self.period_s or 10) * self.failures):
                return await passed.wait()
        except TimeoutError:
            return False
        finally:
            watching.cancel()

    async def watch(self, port: int, *, passing: bool, changed: Callable[[bool], None]) -> None:
        """Probe until cancelled, calling *changed* when enough results in a row contradict *passing*."""
        await asyncio.sleep(self.initial_delay_s)
        streak = 0
        while True:
            passes = await self.passes(port)
            streak = 0 if passes == passing else streak + 1
            if streak >= (self.successes if passes else self.failures):
                passing, streak = passes, 0
                changed(passing)
            starting_s = _STARTING_S if self.period_s else _FAST_S
            await asyncio.sleep((self.period_s or 10) if passing else starting_s)
