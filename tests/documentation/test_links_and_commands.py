"""The pages name files, headings and commands that exist."""

import re
from pathlib import Path

import pytest
import typer.main
import yaml

from tests.documentation.pages import ROOT, anchors, blocks, links, name, pages
from tools.cli.verbs import app

PAGES = pages()
_FOLDERS = "chassis|topk|recsys|recstore|recrank|kubeyaml|localkn|knbroker|dashboard|functions|offline|loadtests|tools|tests|examples|knative|docs"
_FILE = re.compile(rf"`((?:src/)?(?:{_FOLDERS})/[\w./-]+)`")
_VERB = re.compile(r"\./run\.sh ([a-z][a-z-]*)")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path):
    """The target of a link exists in the repository, and an anchor is a heading of its page."""
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.may_block
def test_every_verb_on_a_page_exists():
    """`./run.sh VERB` in prose and code names a verb of the command line."""
    verbs = {*typer.main.get_group(app).commands, "help"}
    named = {verb: name(page) for page in PAGES for verb in _VERB.findall(page.read_text("utf-8"))}
    assert len(named) > 15
    assert {verb: page for verb, page in named.items() if verb not in verbs} == {}


def _parts(found: object) -> set[str]:
    """Return the keys and scalars below *found*."""
    if isinstance(found, dict):
        return {str(key) for key in found} | {part for value in found.values() for part in _parts(value)}
    if isinstance(found, list):
        return {part for value in found for part in _parts(value)}
    return {str(found)}


def test_quoted_manifests_are_those_of_the_project():
    """A YAML block whose title is a file of the project holds keys and values of that file alone."""
    quoted = [(name(page), b) for page in PAGES for b in blocks(page) if b.title.startswith("knative/")]
    assert quoted
    for page, found in quoted:
        assert _parts(yaml.safe_load(found.code)) <= _parts(yaml.safe_load((ROOT / found.title).read_text())), page


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_file_named_on_a_page_exists(page: Path):
    """A path in backticks that begins with a folder of the project is a file or folder there."""
    named = [path for path in _FILE.findall(page.read_text("utf-8")) if not re.search(r"NAME|[A-Z]{3}", path)]
    assert [path for path in named if not ((ROOT / path).exists() or (ROOT / "src" / path).exists())] == []
