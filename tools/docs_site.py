"""
Hooks of mkdocs.yml: add the project's pages that lie outside docs/, and make their links work on the site.

A README belongs beside the code that it describes, and CONTRIBUTING.md into the root. Links between these pages and
docs/ name files of the repository, so that they work on a code host. On the site, the hooks point them at the site's
pages. A link to a file that is not a page, such as a module, becomes plain text.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

# A file of the repository, and its page on the site.
PAGES = {
    "functions/extract_features/README.md": "reference/extract_features.md",
    "functions/rank_items/README.md": "reference/rank_items.md",
    "functions/recommend/README.md": "reference/recommend.md",
    "examples/triage/README.md": "tutorials/triage.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
_FILES = {page: path for path, page in PAGES.items()}
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/."""
    for path, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Return the page with links that work on the site."""
    return rewrite_links(markdown, page=page.file.src_uri)


def rewrite_links(markdown: str, *, page: str) -> str:
    """
    Return *markdown* with its links to files of the repository turned into links to pages.

    A link to a file that does not exist stays as it is, so that the strict build reports it.

    Args:
        markdown: The text of a page.
        page: The page's path on the site.
    """
    folder = posixpath.dirname(_FILES.get(page, f"docs/{page}"))

    def rewrite(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link["path"]))
        target = PAGES.get(path) or path.removeprefix("docs/")
        if path in PAGES or path.startswith("docs/"):
            relative = posixpath.relpath(target, posixpath.dirname(page) or ".")
            return f"[{link['text']}]({relative}{link['anchor'] or ''})"
        return link["text"] if (ROOT / path).exists() else link[0]

    return _LINK.sub(rewrite, markdown)
