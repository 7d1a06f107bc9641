"""The metrics of an instance, for Prometheus."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from chassis.telemetry.instruments import Instrument


class Exposition(Collector):
    """The instruments of an instance. A part adds its instruments when it opens."""

    def __init__(self) -> None:
        self._instruments: list[Instrument] = []

    def add(self, instruments: Iterable[Instrument]) -> None:
        """Include *instruments* in each later scrape."""
        self._instruments.extend(instruments)

    def collect(self) -> Iterator[Metric]:
        """Yield the values of every instrument. The server of the metrics calls this in a thread."""
        for instrument in list(self._instruments):
            yield instrument.collect()
