"""The metrics of an instance on a port of their own, in Prometheus' format."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from recsys.telemetry.instruments import Instrument


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

    Raises:
        OSError: the port is taken.
    """
    if not port:
        yield
        return
    registry = CollectorRegistry()
    registry.register(exposition)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    server, _ = start_http_server(port, addr=host, registry=registry)

    def close() -> None:
        server.shutdown()
        server.server_close()

    try:
        yield
    finally:
        # The server looks up only twice a second; nobody has to wait for that.
        threading.Thread(target=close, daemon=True).start()
