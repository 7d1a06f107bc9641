"""The dashboard process: runs beside the platform and reads it over the control socket, as the verbs do."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from localkn.environment import inherited
from localkn.processes import Process, Processes
from localkn.state import PlatformDirectory

_MODULE = "kndashboard"
_RESTART_S = 1.0
_END_S = 2.0


class Companion:
    """
    `python -m kndashboard` on a loopback port.

    Args:
        listener: Socket that listens on the port.
        state: State directory of the platform that the dashboard shows.
        trusted: Certificate of the public port, if that speaks TLS.
        reports: Directory of reports that the dashboard shows, if there is one.
    """

    def __init__(
        self,
        listener: socket.socket,
        state: PlatformDirectory,
        *,
        trusted: Path | None = None,
        reports: Path | None = None,
    ) -> None:
        self._listener, self._state, self._trusted, self._reports = listener, state, trusted, reports

    @contextlib.asynccontextmanager
    async def beside(self, processes: Processes) -> AsyncIterator[str]:
        """Keep the dashboard running while the block runs; yield its URL, which accepts connections already."""
        self._process = self._start(processes)
        keeping = asyncio.create_task(self._keep(processes))
        try:
            yield f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        finally:
            keeping.cancel()
            await self._process.end(grace_s=_END_S)

    async def _keep(self, processes: Processes) -> None:
        while True:
            await asyncio.wait({self._process.exited})
            await asyncio.sleep(_RESTART_S)
            with contextlib.suppress(OSError):  # no room for a log or a process: the next round tries again
                self._process = self._start(processes)

    def _start(self, processes: Processes) -> Process:
        where = ["--state-dir", str(self._state.root), "--fd", str(self._listener.fileno())]
        trust = ["--trust", str(self._trusted)] if self._trusted else []
        reports = ["--reports", str(self._reports)] if self._reports else []
        return processes.start(
            [sys.executable, "-m", _MODULE, *where, *trust, *reports],
            env=inherited(),
            directory=self._state.root,
            log=self._state.logs / "dashboard.log",
            fds=[self._listener.fileno()],
        )
