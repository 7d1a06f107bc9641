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
        """
        Yield every metric once, with the values of all instruments that measure it.

        The server of the metrics calls this in a thread.
        """
        metrics: dict[str, Metric] = {}
        for instrument in list(self._instruments):
            found = instrument.collect()
            metrics.setdefault(found.name, Metric(found.name, found.documentation, found.type)).samples += found.samples
        yield from metrics.values()
