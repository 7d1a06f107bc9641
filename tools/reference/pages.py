"""The generated tables of the reference pages, written by `./run.sh docs`."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from tools.reference import decisions, http_api, manifests, settings

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


def write(*, check: bool = False) -> int:
    """Write the tables, or check that they are up to date; return the exit status."""
    status = 0
    for name, tables in PAGES.items():
        page = ROOT / name
        present = page.read_text("utf-8")
        wanted = fill(present, tables())
        if not check:
            page.write_text(wanted, "utf-8")
        elif wanted != present:
            print(f"{name} is out of date; run ./run.sh docs", file=sys.stderr)
            status = 1
    return status
