"""The metrics of an instance on a port of their own, in Prometheus' format."""

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from chassis.telemetry.instruments import Instrument

log = logging.getLogger("chassis")


class Exposition(Collector):
    """What an instance has to scrape; parts add their instruments as they are opened."""

    def __init__(self) -> None:
        self._instruments: list[Instrument] = []

    def add(self, instruments: Iterable[Instrument]) -> None:
        """Have *instruments* scraped from now on."""
        self._instruments.extend(instruments)

    def collect(self) -> Iterator[Metric]:
        """Yield every instrument's values; called from the scraping thread."""
        for instrument in list(self._instruments):
            yield instrument.collect()


@contextmanager
def exposed(exposition: Exposition, *, host: str, port: int) -> Iterator[None]:
    """
    Serve *exposition* on *host*:*port* at any path until the block ends; not at all with port 0.

    A port that is taken is logged, and nothing is served: answers matter more than figures about them.
    """
    if not port:
        yield
        return
    registry = CollectorRegistry()
    registry.register(exposition)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    try:
        server, _ = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        log.error("metrics_port_taken", extra={"port": port, "reason": error.strerror})  # noqa: TRY400 - no trace needed
        yield
        return

    def close() -> None:
        server.shutdown()
        server.server_close()

    try:
        yield
    finally:
        # The server looks up only twice a second; nobody has to wait for that.
        threading.Thread(target=close, daemon=True).start()
