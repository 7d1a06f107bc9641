"""The metrics of an instance, for Prometheus."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from chassis.telemetry.instruments import Instrument


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
