"""
Readiness, liveness and startup probes of an instance.

While a probe fails it is tried every 50 ms (periodSeconds 0: Knative's aggressive probing) or 200 ms (as Knative's
activator does), so that a start is not stretched to a multiple of the period.
"""

import asyncio
from collections.abc import Callable

import httpx

from chassis.wire.transport import get
from kubeyaml.templates import Probe

_FAST_S = 0.05
_STARTING_S = 0.2


async def passes(probe: Probe, port: int) -> bool:
    """Try once against the instance on *port*."""
    target = probe.port or port
    try:
        if probe.path is not None:
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in probe.headers.items()]
            url = httpx.URL(f"http://127.0.0.1:{target}{probe.path}")
            return 200 <= (await get(url, headers=headers, timeout_s=probe.timeout_s)).status < 400
        async with asyncio.timeout(probe.timeout_s):
            _, writer = await asyncio.open_connection("127.0.0.1", target)
            writer.close()
            return True
    except (httpx.TransportError, httpx.InvalidURL, OSError, TimeoutError):
        return False


async def passes_in_time(probe: Probe, port: int) -> bool:
    """Try until it passes, or has failed for failureThreshold periods; for a startup probe."""
    passed = asyncio.Event()
    watching = asyncio.create_task(watch(probe, port, passing=False, changed=lambda _: passed.set()))
    try:
        async with asyncio.timeout(probe.initial_delay_s + (probe.period_s or 10) * probe.failures):
            return await passed.wait()
    except TimeoutError:
        return False
    finally:
        watching.cancel()


async def watch(probe: Probe, port: int, *, passing: bool, changed: Callable[[bool], None]) -> None:
    """Probe until cancelled, calling *changed* when enough results in a row contradict *passing*."""
    await asyncio.sleep(probe.initial_delay_s)
    streak = 0
    while True:
        passed = await passes(probe, port)
        streak = 0 if passed == passing else streak + 1
        if streak >= (probe.successes if passed else probe.failures):
            passing, streak = passed, 0
            changed(passing)
        starting_s = _STARTING_S if probe.period_s else _FAST_S
        await asyncio.sleep((probe.period_s or 10) if passing else starting_s)
