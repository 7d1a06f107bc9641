"""Progress of a run, on the terminal or in a log."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from loadtests.recorder import PlatformSample

# Interval of the lines that are printed if the output is not a terminal.
_LOG_EVERY_S = 5


class Progress:
    """
    Shows samples of a run: in a terminal as a live table, otherwise as one line every five seconds.

    Args:
        duration_s: Duration of the run.
        unit: Label of the target load.
        console: Output. Use standard error, because standard output is for the verdict.
    """

    def __init__(self, *, duration_s: float, unit: str, console: Console) -> None:
        self._duration_s, self._unit, self._console = duration_s, unit, console
        # Refreshed by `show`: a refresh thread would compete with the load for CPU.
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._shown_s = -float(_LOG_EVERY_S)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, sample: PlatformSample, recent: Mapping[str, float]) -> None:
        """Show a sample and the figures of the last seconds."""
        facts = {
            self._unit: f"{sample.wanted:.0f}",
            "rps": f"{recent['rps']:.0f}",
            "p99": f"{recent['p99_ms']:.0f} ms",
            "failed": f"{recent['faults']:.0f}",
            **{name: _instances(service) for name, service in sample.services.items()},
        }
        if self._console.is_terminal:
            self._live.update(self._table(sample.elapsed_s, facts), refresh=True)
        elif sample.elapsed_s - self._shown_s >= _LOG_EVERY_S:
            self._shown_s = sample.elapsed_s
            text = ", ".join(f"{name} {value}" for name, value in facts.items())
            self._console.print(f"{sample.elapsed_s:4.0f} s of {self._duration_s:.0f}: {text}", soft_wrap=True)

    def _table(self, elapsed_s: float, facts: Mapping[str, str]) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_row(
            f"{elapsed_s:.0f} of {self._duration_s:.0f} s", ProgressBar(total=self._duration_s, completed=elapsed_s)
        )
        for name, value in facts.items():
            grid.add_row(name, value)
        return grid


def _instances(service: Mapping[str, float]) -> str:
    ready, desired = int(service["ready"]), int(service["desired"])
    return f"{ready} of {desired} instances" if ready != desired else f"{ready} instance{'s' * (ready != 1)}"
