"""The documentation site and its generated tables."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documentation.pages import ROOT
from tests.waiting import LIMIT_S
from tools.docs_site import PAGES, rewrite_links
from tools.reference import http_api, settings
from tools.reference import pages as reference
from tools.reference.meanings import MEANINGS

_LOADED = re.compile(r"<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=\"?([^\">\s]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert built.returncode == 0, built.stderr
    return folder


def test_the_site_loads_nothing_from_other_hosts(site):
    """Scripts, styles, fonts and images are files of the site, named relative to the page."""
    shown = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(shown) > 50
    for page in shown:
        addresses = _LOADED.findall(page.read_text("utf-8"))
        assert addresses, page
        for address in addresses:
            assert not re.match(r"[a-z]+:|/", address), f"{page}: {address}"
            assert (page.parent / re.sub(r"[?#].*", "", address)).exists(), f"{page}: {address}"


def test_the_site_has_the_pages_that_lie_beside_the_code(site):
    """READMEs, CONTRIBUTING.md and CHANGELOG.md are pages of the site."""
    for page in PAGES.values():
        assert (site / page).with_suffix(".html").is_file()


@pytest.mark.parametrize(
    ("page", "link", "wanted"),
    [
        ("how-to/roll-out.md", "[a](../../functions/recommend/README.md#input)", "[a](../reference/recommend.md#input)"),
        ("reference/recommend.md", "[a](../../docs/adr/0008-coalescing.md)", "[a](../adr/0008-coalescing.md)"),
        ("contributing.md", "[a](docs/explanation/architecture.md#the-parts)", "[a](explanation/architecture.md#the-parts)"),
        ("index.md", "[a](../CONTRIBUTING.md)", "[a](contributing.md)"),
        ("explanation/model.md", "[a](../adr/0030-model.md)", "[a](../adr/0030-model.md)"),
        ("reference/recommend.md", "[a](handler.py)", "a"),
        ("index.md", "[a](#here)", "[a](#here)"),
        ("index.md", "[a](https://knative.dev/docs)", "[a](https://knative.dev/docs)"),
        ("index.md", "[a](../absent.md)", "[a](../absent.md)"),
    ],
)  # fmt: skip
def test_links_between_files_become_links_between_pages(page, link, wanted):
    """A link to a page leads to it on the site, a link to code becomes text, all other links stay."""
    assert rewrite_links(link, page=page) == wanted


def test_generated_files_are_up_to_date():
    """`./run.sh docs` would change nothing."""
    assert reference.write(check=True) == 0


def test_generated_files_can_be_checked_and_written(tmp_path, monkeypatch):
    """A check reports a stale file and a missing one, and `docs` writes them."""
    monkeypatch.setattr(reference, "ROOT", tmp_path)
    monkeypatch.setattr(reference, "render", lambda: {"a/stale.md": "new", "missing.md": "new"})
    (tmp_path / "a").mkdir()
    (tmp_path / "a/stale.md").write_text("old")
    assert [reference.write(check=check) for check in (True, False, True)] == [1, 0, 0]


def test_tables_and_markers_must_agree():
    """A table without a place in its page is refused, and so is a place without a table."""
    page = "<!-- table: a -->\nold\n<!-- end -->\n"
    assert reference.fill(page, {"a": "new\n"}) == "<!-- table: a -->\n\nnew\n\n<!-- end -->\n"
    for tables in ({}, {"b": "new"}, {"a": "", "b": ""}):
        with pytest.raises(ValueError, match="marks"):
            reference.fill(page, tables)


def test_settings_have_the_defaults_and_bounds_of_the_code():
    """A variable's row has what its function reads."""
    read = settings.variables("rank_items")
    assert read["MAX_BATCH_SIZE"] == settings.Variable("MAX_BATCH_SIZE", "32", "1 to 1024")
    assert read["MODEL_PATH"].default == "required"
    assert read["CPU_LIMIT"].values == "0.01 or more"


def test_a_setting_without_meaning_is_noticed(monkeypatch):
    """The tables cannot be made while a variable lacks its meaning."""
    monkeypatch.delitem(MEANINGS["recommend"], "K_SINK")
    with pytest.raises(ValueError, match="K_SINK"):
        settings.tables()


def test_an_error_without_cause_is_noticed(monkeypatch):
    """Generating the tables fails if an error has no explanation of its cause."""
    monkeypatch.delitem(http_api.CAUSES, "overloaded")
    with pytest.raises(ValueError, match="overloaded"):
        http_api.tables()
