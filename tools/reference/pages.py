"""Generated files, written by `./run.sh docs`: pages, tables of pages, the OpenAPI documents, and the Grafana dashboard."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from recsys.contracts.openapi import CONTRACTS, document
from tools.declaration import schema
from tools.reference import command_line, decisions, grafana_dashboard, http_api, manifests, metrics, settings

ROOT = Path(__file__).parents[2]

# A page, and the tables in it by the name that its markers have.
PAGES: dict[str, Callable[[], dict[str, str]]] = {
    "docs/reference/settings.md": settings.tables,
    "docs/reference/http-api.md": http_api.tables,
    "docs/reference/manifests.md": manifests.tables,
    "docs/adr/index.md": decisions.tables,
}


def fill(page: str, tables: dict[str, str]) -> str:
    """
    Return *page* with each table between its markers, `<!-- table: NAME -->` and `<!-- end -->`.

    Raises:
        ValueError: a table has no markers in the page, or markers have no table.
    """
    marked = re.findall(r"<!-- table: (.+?) -->", page)
    if sorted(marked) != sorted(tables):
        raise ValueError(f"the page marks {sorted(marked)}, the tables are {sorted(tables)}")
    return re.sub(
        r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{tables[found[2]]}\n{found[3]}",
        page,
        flags=re.DOTALL,
    )


def render() -> dict[str, str]:
    """Return the content of each file."""
    return {
        **{name: fill((ROOT / name).read_text("utf-8"), tables()) for name, tables in PAGES.items()},
        **{f"docs/reference/openapi/{name}.json": document(name).decode() + "\n" for name in CONTRACTS},
        "docs/reference/recsys.schema.json": schema(),
        "docs/reference/cli.md": command_line.render(),
        "docs/reference/metrics.md": metrics.render(),
        "knative/monitoring/dashboard.json": grafana_dashboard.render(),
    }


def write(*, check: bool = False) -> int:
    """Write the files, or check that they are up to date; return the exit status."""
    status = 0
    for name, content in render().items():
        page = ROOT / name
        if not check:
            page.parent.mkdir(exist_ok=True)
            page.write_text(content, "utf-8")
        elif not page.is_file() or page.read_text("utf-8") != content:
            print(f"{name} is out of date; run ./run.sh docs", file=sys.stderr)
            status = 1
    return status
