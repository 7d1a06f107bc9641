"""One instance of a revision: a process from its start to its end."""

import asyncio
import enum
import shutil
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kubeyaml.errors import KubeyamlError
from kubeyaml.templates import Template
from localkn import probes
from localkn.errors import LocalknError
from localkn.processes import Process, Processes


class InstanceState(enum.StrEnum):
    """The phase of an instance's life."""

    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"
    DRAINING = "draining"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything needed to start an instance."""

    argv: Sequence[str]
    env: Mapping[str, str]
    directory: Path
    log: Path
    scratch: Path


@dataclass(eq=False)
class Instance:
    """
    A process and its state; each change of *state* calls *changed*.

    *drained* returns when a draining instance has no request in flight.
    """

    name: str
    port: int
    template: Template
    changed: Callable[[], None]
    drained: Callable[["Instance"], Coroutine[Any, Any, None]]
    state: InstanceState = InstanceState.STARTING
    started_at: float = field(default_factory=time.monotonic)
    ready_at: float | None = None
    exit_reason: str | None = None
    process: Process | None = None
    metrics_port: int | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Let the instance finish its requests and end."""
        self._stop.set()

    async def run(self, launch: Callable[[], Launch], processes: Processes) -> None:
        """Start the process, probe it, and return when it has ended."""
        scratch = None
        try:
            launched = launch()
            scratch = launched.scratch
            self.process = processes.start(
                launched.argv, env=launched.env, directory=launched.directory, log=launched.log
            )
        except (OSError, ValueError, KubeyamlError, LocalknError) as error:
            self.exit_reason = f"cannot start: {error}"
        else:
            await self._live(self.process)
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        self._enter(InstanceState.ENDED)

    async def _live(self, process: Process) -> None:
        probing = asyncio.create_task(self._probe(process))
        await _either(self._stop.wait(), process)
        if not process.exited.done():
            self._enter(InstanceState.DRAINING)
            await _either(self.drained(self), process, within_s=self.template.timeout_s)
            await process.end(grace_s=self.template.timeout_s)
        probing.cancel()
        status = process.exited.result()
        if self.exit_reason is None:
            self.exit_reason = f"exit code {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"

    async def _probe(self, process: Process) -> None:
        def kill(reason: str) -> None:
            self.exit_reason = reason
            process.signal(signal.SIGKILL)

        startup, liveness = self.template.startup, self.template.liveness
        if startup is not None and not await probes.passes_in_time(startup, self.port):
            kill("startup probe failed")
        async with asyncio.TaskGroup() as watches:
            watches.create_task(
                probes.watch(self.template.readiness, self.port, passing=False, changed=self._readiness)
            )
            if liveness is not None:
                failed = partial(kill, "liveness probe failed")
                watches.create_task(probes.watch(liveness, self.port, passing=True, changed=lambda _: failed()))

    def _readiness(self, passing: bool) -> None:  # noqa: FBT001 - a probe's verdict
        if self.state in {InstanceState.STARTING, InstanceState.READY, InstanceState.UNREADY}:
            if passing and self.ready_at is None:
                self.ready_at = time.monotonic()
            self._enter(InstanceState.READY if passing else InstanceState.UNREADY)

    def _enter(self, state: InstanceState) -> None:
        self.state = state
        self.changed()


async def _either(event: Coroutine[Any, Any, Any], process: Process, *, within_s: float | None = None) -> None:
    """Wait until *event* happens or *process* ends."""
    task: asyncio.Future[Any] = asyncio.ensure_future(event)
    await asyncio.wait({task, process.exited}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    task.cancel()
