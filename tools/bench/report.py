"""The report of a benchmark, as tables and as JSON."""

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

Op = Literal[">=", "<="]
ReportRow = dict[str, Any]


@dataclass(frozen=True)
class BenchTarget:
    """A figure and its required bound."""

    name: str
    value: float
    op: Op
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the figure is within the bound."""
        return self.value >= self.bound if self.op == ">=" else self.value <= self.bound


@dataclass(frozen=True)
class BenchReport:
    """The result of one benchmark: rows with equal keys, and targets."""

    bench: str
    rows: list[ReportRow]
    targets: list[BenchTarget] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every target holds."""
        return all(target.holds for target in self.targets)

    def to_json(self) -> str:
        """Return the report as one JSON object."""
        return json.dumps(
            {
                "bench": self.bench,
                "environment": describe_environment(),
                "rows": self.rows,
                "targets": [
                    {"name": t.name, "value": round(t.value, 4), "op": t.op, "bound": t.bound, "holds": t.holds}
                    for t in self.targets
                ],
            }
        )

    def show(self) -> None:
        """Print the report as tables."""
        console = Console(width=None if sys.stdout.isatty() else 140)
        console.print(_table(self.bench, self.rows))
        targets = [
            {
                "target": t.name,
                "value": f"{t.value:.3g}",
                "required": f"{t.op} {t.bound:g}",
                "holds": "yes" if t.holds else "NO",
            }
            for t in self.targets
        ]
        if targets:
            console.print(_table("targets", targets))
        console.print(", ".join(f"{name} {value}" for name, value in describe_environment().items()), style="dim")


def describe_environment() -> dict[str, Any]:
    """Return the properties of this machine that the figures depend on."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "numpy": version("numpy"),
    }


def _table(title: str, rows: Sequence[ReportRow]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    return table
