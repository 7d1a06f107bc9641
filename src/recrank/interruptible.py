"""Coroutines that a thread waits for, and that another thread ends."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class InterruptedReadError(Exception):
    """Another thread ended the coroutine."""


class Interruptible:
    """Runs coroutines for one thread at a time, until `stop` is called."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._is_stopped = False
        self._cancel: Callable[[], object] | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """
        Return the result of *work*, for which the calling thread waits.

        Raises:
            InterruptedReadError: `stop` was called before *work* ended.
        """
        try:
            # The calling thread may already run an event loop.
            with ThreadPoolExecutor(1, thread_name_prefix="read") as thread:
                return thread.submit(asyncio.run, self._run(work)).result()
        except asyncio.CancelledError as error:
            raise InterruptedReadError from error
        except OSError as error:
            # After `stop`, the folder that the read writes into may be gone.
            if self._is_stopped:
                raise InterruptedReadError from error
            raise

    def stop(self) -> None:
        """Cancel what runs now, and refuse to run more. Any thread may call this."""
        with self._guard:
            self._is_stopped = True
            if self._cancel:
                self._cancel()

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        with self._guard:
            if self._is_stopped:
                task.cancel()
            self._cancel = partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel)
        try:
            return await task
        finally:
            with self._guard:
                self._cancel = None
