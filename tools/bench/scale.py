"""
Benchmark of size: import, train and evaluate synthetic interactions with power laws, each verb in its own process.

    python -m tools.bench.scale --ties 10000000 [--verb train] [--folder DIR]

A user's number of items follows a power law, and so does the popularity of items. Every user prefers a group of items,
and each user's interactions have rising times. Equal sizes give equal files.

CPU time and peak memory come from the operating system (getrusage) and include all threads of the process.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tools.bench.report import BenchReport, BenchTarget, ReportRow
from topk.item_table import I64

# `evaluate` without --brief trains three times.
VERBS = {"train": (), "evaluate": ("--brief",)}

_GROUPS = 20
_SHIFT = 20
_LOYALTY = 0.6
_SHORTEST, _LONGEST = 5, 2000
_START_S, _SPAN_S = 1_600_000_000, 50_000_000
_BLOCK_USERS = 20_000
# Standard output is for the report. ru_maxrss is in bytes on macOS and in KiB elsewhere.
_STDERR = 2
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024

# Limits of CPU seconds and of megabytes for each verb, by ties.
_LIMITS = {1_000_000: (300, 1500), 10_000_000: (1800, 8000)}


def measure(*, quick: bool) -> BenchReport:
    """Measure 100,000 ties and a million."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = (2000,) if quick else (100_000, 1_000_000)
        rows = [row for ties in sizes for row in _measure(ties, Path(folder), list(VERBS))]
    return BenchReport("scale", rows, _targets(rows))


def write_interactions(path: Path, ties: int) -> tuple[int, int]:
    """Write a CSV file with about *ties* interactions; return its numbers of ties and of users."""
    random = np.random.default_rng(0)
    users, items = max(ties // 50, 20), max(int(20 * np.sqrt(ties)), 100)
    written = 0
    with path.open("w") as file:
        file.write("user_id,item_id,weight,timestamp\n")
        for start in range(0, users, _BLOCK_USERS):
            owners, columns, times = _draw(random, min(_BLOCK_USERS, users - start), items)
            weights = 1 + columns % 5
            lines = zip((owners + start).tolist(), columns.tolist(), weights.tolist(), times.tolist(), strict=True)
            file.writelines(f"u{owner},i{column},{weight},{time_s}\n" for owner, column, weight, time_s in lines)
            written += owners.size
    return written, users


def _draw(random: np.random.Generator, users: int, items: int) -> tuple[I64, I64, I64]:
    """Return the users, items and times of distinct pairs, ordered by user and time."""
    lengths = np.clip(_SHORTEST + random.pareto(1.3, users) * 23, _SHORTEST, min(_LONGEST, items // 4)).astype(int)
    owners = np.repeat(np.arange(users), lengths)
    # The popularity of an item is (rank + 20) ** -0.8; this is the inverse of its cumulative distribution.
    low, high = _SHIFT**0.2, (items + _SHIFT) ** 0.2
    ranks = np.minimum((low + (high - low) * random.random(owners.size)) ** 5 - _SHIFT, items - 1).astype(np.int64)
    loyal = random.random(owners.size) < _LOYALTY
    columns = np.where(loyal, np.minimum(ranks - ranks % _GROUPS + owners % _GROUPS, items - 1), ranks)
    cells = np.unique(owners * items + columns)
    owners, columns = cells // items, cells % items
    order = np.lexsort((random.random(cells.size), owners))
    owners, columns = owners[order], columns[order]
    first = random.integers(0, _SPAN_S, users)
    steps = np.cumsum(random.integers(1, 5000, owners.size))
    starts = np.searchsorted(owners, np.arange(users))
    return owners, columns, _START_S + first[owners] + steps - steps[starts][owners]


def _measure(ties: int, folder: Path, verbs: Sequence[str]) -> Iterator[ReportRow]:
    path = folder / f"{ties}.csv"
    written, users = write_interactions(path, ties)
    for verb in verbs:
        words = [*VERBS[verb], "--interactions", str(path), "--state-dir", str(folder / f"state-{ties}")]
        began = time.monotonic()
        cpu_s, peak_mb = _run([sys.executable, "-m", "tools.cli", verb, *words])
        yield {
            "verb": verb,
            "ties": written,
            "users": users,
            "cpu_s": round(cpu_s, 1),
            "wall_s": round(time.monotonic() - began, 1),
            "peak_mb": round(peak_mb),
        }


def _run(command: Sequence[str]) -> tuple[float, float]:
    """Run *command*; return its CPU seconds and its peak memory in megabytes."""
    process = subprocess.Popen(command, stdout=_STDERR)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(
            f"{' '.join(command)} failed with status {process.returncode}; the lines above give the reason"
        )
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _MAXRSS_BYTES / 1e6


def _targets(rows: Sequence[ReportRow]) -> list[BenchTarget]:
    targets = []
    for wanted, (cpu_s, peak_mb) in _LIMITS.items():
        found = [row for row in rows if abs(row["ties"] - wanted) < wanted / 4]
        if found:
            name = f"{wanted:,} ties"
            targets.append(BenchTarget(f"{name}: CPU s of a verb", max(row["cpu_s"] for row in found), "<=", cpu_s))
            targets.append(BenchTarget(f"{name}: peak MB", max(row["peak_mb"] for row in found), "<=", peak_mb))
    return targets


def main() -> None:
    """Measure one size."""
    parser = argparse.ArgumentParser(prog="tools.bench.scale", description=__doc__)
    parser.add_argument("--ties", type=int, default=1_000_000)
    parser.add_argument("--verb", choices=VERBS, action="append", help="default: all")
    parser.add_argument("--folder", type=Path, help="keep the file and the state there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = list(_measure(options.ties, options.folder or Path(temporary), options.verb or list(VERBS)))
    BenchReport("scale", rows, _targets(rows)).show()


if __name__ == "__main__":
    main()
