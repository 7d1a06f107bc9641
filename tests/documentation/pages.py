"""The project's Markdown pages, their links and their code blocks."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(
    r"^( *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^\1```", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+?)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; the title is empty if it has none."""

    language: str
    title: str
    code: str


def pages() -> list[Path]:
    """Return all Markdown files of the project that git tracks, or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [ROOT / path for path in listed if (ROOT / path).is_file()]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> Iterator[Block]:
    for found in _FENCE.finditer(page.read_text("utf-8")):
        yield Block(found["language"], found["title"] or "", found["code"])


def block(page: Path, title: str) -> str:
    """Return the code of the only block with *title*."""
    (code,) = [found.code for found in blocks(page) if found.title == title]
    return code


def links(page: Path) -> list[str]:
    return _LINK.findall(_prose(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors of the page's headings, as code hosts make them."""
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", heading) for heading in _HEADING.findall(_prose(page))]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text("utf-8"))
