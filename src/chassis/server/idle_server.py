"""A uvicorn server that sleeps until a connection or a signal arrives."""

import asyncio

import uvicorn


class WakingServer(uvicorn.Server):
    """
    A uvicorn server that waits for its end instead of asking for it.

    uvicorn wakes ten times a second to read a flag, which costs an idle process 0.2 % of a core. Here the assignment of
    the flag wakes the server. uvicorn's date header and its limit of requests need the wake-ups, so a configuration
    must not use them; `configure` sets neither.
    """

    _is_ending = False
    _waiting: "tuple[asyncio.AbstractEventLoop, asyncio.Event] | None" = None

    @property
    def should_exit(self) -> bool:
        """Whether the server ends. Any thread or signal handler may set it."""
        return self._is_ending

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._is_ending = value
        if value and self._waiting:
            loop, ended = self._waiting
            loop.call_soon_threadsafe(ended.set)

    async def main_loop(self) -> None:
        """Return when `should_exit` is set."""
        ended = asyncio.Event()
        self._waiting = asyncio.get_running_loop(), ended
        try:
            if not await self.on_tick(0):
                await ended.wait()
        finally:
            self._waiting = None
