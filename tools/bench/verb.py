"""`./run.sh bench NAME`: run a benchmark, print its figures, and check its targets."""

import importlib
from pathlib import Path

# Benchmarks whose module has another name.
_MODULES = {"page": "dashboard"}


def bench(
    *,
    name: str,
    as_json: bool = False,
    check: bool = False,
    quick: bool = False,
    interactions: Path | None = None,
    format_: str = "csv",
) -> int:
    """Run one benchmark; return the exit status."""
    data = {"interactions": interactions, "format_": format_} if interactions else {}
    report = importlib.import_module(f"tools.bench.{_MODULES.get(name, name)}").measure(quick=quick, **data)
    if as_json:
        print(report.to_json())
    else:
        report.show()
    return 0 if report.holds or not check else 1
