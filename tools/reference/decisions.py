"""The list of the architecture decision records."""

import re
from pathlib import Path

from tools.reference.tables import table

RECORDS = Path(__file__).parents[2] / "docs/adr"


def tables() -> dict[str, str]:
    """Return the table of all decision records, by number."""
    rows = [_row(path) for path in sorted(RECORDS.glob("[0-9]*.md"))]
    return {"decisions": table(("number", "decision", "status"), rows)}


def _row(path: Path) -> tuple[str, str, str]:
    text = path.read_text("utf-8")
    title = re.match(r"# (\d+)\. (.+)", text)
    status = re.search(r"^## Status\n\n(.+?)\.?\n\n", text, re.MULTILINE | re.DOTALL)
    if title is None or status is None:
        raise ValueError(f"{path}: a decision record begins with '# NUMBER. TITLE' and a section Status")
    return title[1], f"[{title[2]}]({path.name})", status[1].replace("\n", " ")
