"""Measure the calls of the feature store, and name the error of a request whose call fails."""

import time
from collections.abc import Awaitable
from typing import TypeVar

from chassis.telemetry.instruments import Counter, Histogram, Instrument
from chassis.wire.problems import DependencyError
from recstore.port import StoreError
from recsys import metrics

Result = TypeVar("Result")


class StoreCalls:
    """The calls of the feature store since the start, by operation: `read`, `apply`, `update` and `erase`."""

    def __init__(self) -> None:
        self._durations = Histogram(metrics.STORE_DURATION)
        self._errors = Counter(metrics.STORE_ERRORS, known=[("read",), ("apply",), ("update",), ("erase",)])

    def instruments(self) -> list[Instrument]:
        """Return the metrics of the calls."""
        return [self._durations, self._errors]

    async def measured(self, operation: str, call: Awaitable[Result]) -> Result:
        """
        Return the result of *call*.

        Raises:
            DependencyError: the store failed.
        """
        began = time.monotonic()
        try:
            return await call
        except StoreError as error:
            self._errors.add(operation)
            raise unavailable("feature store") from error
        finally:
            self._durations.observe(time.monotonic() - began, operation)


def unavailable(store: str) -> DependencyError:
    """Return the error of a request that *store* fails."""
    return DependencyError(f"the {store} does not answer", retry_after_s=1.0)
