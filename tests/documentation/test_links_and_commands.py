"""The pages name files, headings and commands that exist, and wrap at 100 columns."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import typer
import typer.main
import yaml
from typer.exceptions import TyperException

from tests.documentation.pages import ROOT, anchors, blocks, links, name, pages
from tools.cli.verbs import app

PAGES = pages()
_FOLDERS = "chassis|topk|recsys|recstore|recrank|kubeyaml|localkn|knbroker|dashboard|functions|offline|loadtests|tools|tests|examples|knative|docs"
_FILE = re.compile(rf"`((?:src/)?(?:{_FOLDERS})/[\w./-]+)`")
_VERB = re.compile(r"\./run\.sh ([a-z][a-z-]*)")
_VERBS = typer.main.get_group(app).commands
_INLINE = re.compile(r"(?<!`)`(\./run\.sh [^`]+)`")
# A word that stands for another one, and a word of the shell that ends a command.
_STAND_IN, _ENDS = re.compile(r"…|[\[|]|\b[A-Z]+\b"), {"|", ">", "&", "&&"}


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
    verbs = {*_VERBS, "help"}
    named = {verb: name(page) for page in PAGES for verb in _VERB.findall(page.read_text("utf-8"))}
    assert len(named) > 15
    assert {verb: page for verb, page in named.items() if verb not in verbs} == {}


def commands(page: Path) -> Iterator[Sequence[str]]:
    """Yield the words of each `./run.sh VERB …` in a sentence or a shell block, without comments."""
    found = [" ".join(inline.split()) for inline in _INLINE.findall(page.read_text("utf-8"))]
    for block in blocks(page):
        if block.language == "sh":
            found += [line[line.index("./run.sh") :] for line in block.code.splitlines() if "./run.sh" in line]
    for command in found:
        words = shlex.split(command.replace(')"', ""), comments=True)
        end = next((place for place, word in enumerate(words) if word in _ENDS), len(words))
        if words[1] in _VERBS:
            yield words[:end]


def refusal(words: Sequence[str]) -> str | None:
    """
    Return why the parser of its verb refuses a command; None if it does not, or only for what the page leaves out.

    A page may leave out arguments, let words stand for others, and name files that the reader writes.
    """
    try:
        _VERBS[words[1]].make_context(words[1], list(words[2:]))
    except typer.Exit:
        return None
    except TyperException as error:
        said, kind = str(error), type(error).__name__
        left_out = ("does not exist" in said, "requires an argument" in said, _STAND_IN.search(" ".join(words)))
        return None if kind == "MissingParameter" or (any(left_out) and kind != "NoSuchOption") else f"{kind}: {said}"
    return None


@pytest.mark.may_block
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_on_a_page_is_accepted(page: Path):
    """The verb takes the options and values that the page gives it."""
    refused = {" ".join(words): why for words in commands(page) if (why := refusal(words))}
    assert refused == {}


@pytest.mark.may_block
def test_a_refused_command_is_noticed():
    """An unknown option is refused also beside a word that stands for another one."""
    commands = ("up --prot 9000", "users delete ann", "evaluate --via … --abl", "bench NAME", "train --items my.csv")
    assert [bool(refusal(["./run.sh", *each.split()])) for each in commands] == [True, True, True, False, False]


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


def too_long(text: str) -> list[str]:
    """Return the lines of *text* over 100 columns that a wrap can shorten; code, tables and headings are left out."""
    prose = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for line in prose.splitlines() if len(line) > 100 and not line.lstrip().startswith(("|", "#", "<"))]
    return [line for line in lines if " " in line[:100].strip(" -*")]


def test_prose_wraps_at_100_columns() -> None:
    """No line of prose is longer, unless it is a single word, such as an address."""
    found = {name(page): lines for page in pages() if (lines := too_long(page.read_text("utf-8")))}
    assert found == {}


def test_long_lines_are_found() -> None:
    """A long line of prose is found; a table, a block of code and an address are not."""
    prose = "word " * 21
    assert too_long(f"short\n{prose}\n") == [prose]
    assert too_long(f"| {prose}|\n```sh\n{prose}\n```\n- https://{'x' * 120}\n") == []
