"""Processes of the platform: start them, notice their end immediately, and leave none running."""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Self

# The guardian kills the process groups it knows once its stdin closes, which happens however this process ends. It
# runs in a new session and ignores the signals of the terminal, so that it outlives this process.
_GUARDIAN = """
trap '' INT TERM HUP
groups=' '
while read -r sign group; do
  case $sign in +) groups="$groups$group " ;; -) groups="${groups%% $group *} ${groups#* $group }" ;; esac
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
"""
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1
# Below the ephemeral ports, so that no outgoing connection takes a port between its choice and its use. Even ones, so
# that a program can use the port after one it drew: no other program draws that.
_PORTS = range(18000, 32000, 2)
# More ports than one platform draws until its servers listen.
_RESERVED = 64
# The ports drawn last, and on Linux the descriptors of the sockets that reserve them.
_drawn: deque[int] = deque(maxlen=_RESERVED)
_held: deque[int] = deque()


class Process:
    """A started process, which leads its own process group."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.pid = popen.pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._popen = popen

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group while the process lives."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def end(self, *, grace_s: float) -> None:
        """Send SIGTERM, and SIGKILL after *grace_s*; return when the process has ended."""
        self.signal(signal.SIGTERM)
        await asyncio.wait({self.exited}, timeout=grace_s)
        self.signal(signal.SIGKILL)
        await self.exited

    def reap(self) -> bool:
        """Note the end of the process and kill the rest of its group; return whether it has just ended."""
        if self._popen.poll() is None or self.exited.done():
            return False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.exited.set_result(self._popen.returncode)
        return True


class Processes:
    """All processes of a platform; use it as an asynchronous context manager."""

    def __init__(self) -> None:
        self._running: dict[int, Process] = {}
        self._guardian = subprocess.Popen(
            ["/bin/sh", "-c", _GUARDIAN], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._running.values():
            process.signal(signal.SIGKILL)
        if self._running:
            await asyncio.wait({process.exited for process in self._running.values()})
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        self._guardian.communicate()

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str], directory: Path, log: Path, fds: Sequence[int] = ()
    ) -> Process:
        """
        Start *argv* in *directory*; append its output to *log*, and let it inherit the descriptors *fds*.

        Raises:
            OSError: The command does not exist or cannot be run.
        """
        with log.open("ab") as output:
            popen = subprocess.Popen(
                argv,
                env=dict(env),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=fds,
                preexec_fn=partial(_die_with, os.getpid()) if _LIBC else None,  # noqa: PLW1509 - there is one thread
            )
        process = self._running[popen.pid] = Process(popen)
        self._tell_guardian("+", popen.pid)
        return process

    def _reap(self) -> None:
        for process in list(self._running.values()):
            if process.reap():
                del self._running[process.pid]
                self._tell_guardian("-", process.pid)

    def _tell_guardian(self, sign: str, group: int) -> None:
        assert self._guardian.stdin is not None  # noqa: S101 - opened with a pipe
        with contextlib.suppress(BrokenPipeError):
            self._guardian.stdin.write(f"{sign} {group}\n".encode())
            self._guardian.stdin.flush()


def _die_with(supervisor: int) -> None:  # pragma: no cover - runs in the child, before it is another program
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(1)


def is_free(port: int) -> bool:
    """Tell whether a server can listen on the loopback *port* now."""
    with reserved(port) as is_reserved:
        return is_reserved


@contextlib.contextmanager
def reserved(port: int) -> Iterator[bool]:
    """
    Let no process draw the loopback *port* while the block runs; yield whether a server can listen on it.

    The reservation itself does not stop a server that sets SO_REUSEADDR. Other systems than Linux have none.
    """
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        is_reserved = _binds(reservation, port)
        if sys.platform != "linux":
            reservation.close()
        yield is_reserved


def free_port() -> int:
    """
    Draw a free loopback port at random, and reserve it until a server listens on it.

    A reservation lasts for the next 64 draws of this process, which do not return the port again. On Linux no other
    process draws it either. Servers that set SO_REUSEADDR, as all common ones do, can listen on a reserved port.
    """
    while True:
        port = SystemRandom().choice(_PORTS)
        with socket.socket() as reservation:
            if port in _drawn or not _binds(reservation, port):
                continue
            _drawn.append(port)
            if sys.platform == "linux":
                # Linux lets a server bind beside a socket that does not listen if both have the option by then. The
                # bind above came before the option, so it fails beside every other socket.
                reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                _held.append(reservation.detach())
        if len(_held) > _RESERVED:
            os.close(_held.popleft())
        return port


def _binds(server: socket.socket, port: int) -> bool:
    try:
        server.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
