"""`./run.sh bench NAME [--json] [--check] [--quick]`: measure, print, and with --check fail where a target does not hold."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

BENCHES = ("batching", "coalescing", "coldstart", "events", "pipeline", "topk", "train")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark; return the exit status."""
    parser = argparse.ArgumentParser(prog="./run.sh bench", description=__doc__)
    parser.add_argument("name", choices=BENCHES)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target does not hold")
    parser.add_argument("--quick", action="store_true", help="toy size: shows that it runs, not how fast")
    parser.add_argument("--interactions", type=Path, metavar="FILE", help="train: data of yours as well")
    parser.add_argument("--format", default="csv", help="of that file")
    options = parser.parse_args(arguments)
    if options.interactions and options.name != "train":
        parser.error("--interactions goes with train")
    data = {"interactions": options.interactions, "format_": options.format} if options.interactions else {}
    report = importlib.import_module(f"tools.bench.{options.name}").measure(quick=options.quick, **data)
    if options.json:
        print(report.to_json())
    else:
        report.show()
    return 0 if report.holds or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
