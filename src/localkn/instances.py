"""One instance of a revision: a process from its start to its end."""

import asyncio
import contextlib
import enum
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localkn.errors import LocalknError
from localkn.processes import Process, Processes
from localkn.templates import Template


class State(enum.StrEnum):
    """Where an instance is in its life."""

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
    A process and what is known of it; changes of *state* are announced by calling *changed*.

    *drained* resolves when no request is left on an instance that no longer gets any.
    """

    name: str
    port: int
    template: Template
    changed: Callable[[], None]
    drained: Callable[["Instance"], Awaitable[None]]
    state: State = State.STARTING
    started_at: float = field(default_factory=time.monotonic)
    ready_at: float | None = None
    exit_reason: str | None = None
    process: Process | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def stopping(self) -> bool:
        """Whether it has been told to go."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Let it finish its requests and end."""
        self._stop.set()

    async def run(self, launch: Launch, processes: Processes) -> None:
        """Live: start, be probed, end by itself or when told to."""
        try:
            self.process = processes.start(launch.argv, env=launch.env, directory=launch.directory, log=launch.log)
        except (OSError, LocalknError) as error:
            self.exit_reason = f"cannot start: {error}"
        else:
            await self._live(self.process)
        shutil.rmtree(launch.scratch, ignore_errors=True)
        self._enter(State.ENDED)

    async def _live(self, process: Process) -> None:
        probing, told = asyncio.create_task(self._probe(process)), asyncio.create_task(self._stop.wait())
        events: set[asyncio.Future[Any]] = {process.exited, told}
        try:
            await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
            if not process.exited.done():
                await self._go(process)
        finally:
            probing.cancel()
            told.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await probing
        status = await process.exited
        if self.exit_reason is None:
            self.exit_reason = f"exit code {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"

    async def _go(self, process: Process) -> None:
        grace_s = float(self.template.timeout_s)
        self._enter(State.DRAINING)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self.drained(self)
        await process.end(grace_s=grace_s)

    async def _probe(self, process: Process) -> None:
        startup, liveness = self.template.startup, self.template.liveness
        if startup is not None:
            passed = asyncio.Event()
            watching = asyncio.create_task(startup.watch(self.port, passing=False, changed=lambda _: passed.set()))
            try:
                async with asyncio.timeout(startup.budget_s):
                    await passed.wait()
            except TimeoutError:
                self._kill(process, "startup probe failed")
            finally:
                watching.cancel()
        async with asyncio.TaskGroup() as watches:
            watches.create_task(self.template.readiness.watch(self.port, passing=False, changed=self._readiness))
            if liveness is not None:
                watches.create_task(
                    liveness.watch(
                        self.port, passing=True, changed=lambda _: self._kill(process, "liveness probe failed")
                    )
                )

    def _readiness(self, passing: bool) -> None:  # noqa: FBT001 - a probe's verdict
        if self.state in {State.STARTING, State.READY, State.UNREADY}:
            if passing and self.ready_at is None:
                self.ready_at = time.monotonic()
            self._enter(State.READY if passing else State.UNREADY)

    def _kill(self, process: Process, reason: str) -> None:
        self.exit_reason = reason
        process.signal(signal.SIGKILL)

    def _enter(self, state: State) -> None:
        self.state = state
        self.changed()
