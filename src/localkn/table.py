"""The status of a platform as a table that updates itself."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

_COLUMNS = ("revision", "traffic", "ready", "in flight", "rps", "p50/p99 ms", "state")
_WIDE = 72


def show(ask: Callable[[], dict[str, Any]], *, watch: bool | None = None) -> None:
    """
    Print the status that *ask* returns.

    Args:
        ask: Returns the status.
        watch: Update it every second; if None, only on a terminal. Elsewhere a new table follows the last one.
    """
    console = Console()
    if not (console.is_terminal if watch is None else watch):
        console.print(_table(ask(), console.width))
        return
    while not console.is_terminal:
        console.print(_table(ask(), console.width))
        time.sleep(1)
    with Live(_table(ask(), console.width), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(1)
            live.update(_table(ask(), console.width), refresh=True)


def _table(status: Mapping[str, Any], width: int) -> Table:
    revisions = [revision for service in status["services"].values() for revision in service["revisions"]]
    failures = [f"{revision['name']} failed: {revision['failure']}" for revision in revisions if revision["failure"]]
    brokers = [f"Broker {name} takes events at {url}" for name, url in status["brokers"].items()]
    caption = "\n".join([*failures, *brokers, *status["notes"]])
    # Without frames, 72 columns hold every heading; a tag that does not fit moves to the next line.
    columns = _COLUMNS if width >= _WIDE else ("revision", "ready", "state")
    table = Table(
        title=status["url"],
        caption=caption,
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    longest = max((len(revision["name"]) for revision in revisions), default=0)
    table.add_column(columns[0], min_width=longest)
    for column in columns[1:]:
        table.add_column(column, justify="left" if column == "state" else "right", no_wrap=True)
    for revision in revisions:
        if revision["instances"] or revision["traffic_percent"]:
            row = dict(zip(_COLUMNS, _row(revision), strict=True))
            table.add_row(*(row[column] for column in columns))
    return table


def _row(revision: Mapping[str, Any]) -> list[str]:
    times = [f"{revision[key]:.0f}" for key in ("p50_ms", "p99_ms") if key in revision]
    return [
        revision["name"] + "".join(f" #{tag}" for tag in revision["tags"]),
        f"{revision['traffic_percent']} %",
        f"{revision['ready']}/{revision['desired']}",
        f"{revision['concurrency']:.1f} of {revision['target']:g}",
        f"{revision['rps']:.1f}",
        "/".join(times),
        _state(revision),
    ]


def _state(revision: Mapping[str, Any]) -> str:
    if revision["waiting"]:
        return f"{revision['waiting']} wait"
    if revision["panicking"]:
        return "panic"
    return "" if revision["ready"] or revision["desired"] or revision["failure"] else "at zero"
