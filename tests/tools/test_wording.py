"""The check for wordings that a reader has to read twice."""

import pytest

from tools.wording import find_habits


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("a.py", '"""Who leaves early counts as a timeout."""\n'),
        ("a.py", "x = 1  # the instance begins anew with it\n"),
        ("a.py", 'raise ValueError("the issuer\'s keys cannot be had")\n'),
        ("a.py", 'def f():\n    """\n    Do it.\n\n    What waits longer is dropped here.\n    """\n'),
        ("a.md", "The text begins.\n\n- Of two pipelines the first one wins.\n"),
        ("a.sh", "# This ends at once when stopped.\n"),
    ],
)
def test_a_habit_is_found(path, content):
    """A sentence that opens with a riddle, or uses a bookish word, is found in every kind of text."""
    assert len(find_habits(path, content)) == 1


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("a.py", '"""A caller that leaves early counts as a timeout."""\n'),
        ("a.py", 'x = "anew in a plain string is no prose at all"\n'),
        ("a.md", "```sh\nWho leaves early counts as a timeout\n```\n"),
        ("a.md", "| What | is a heading of a table |\n"),
        ("a.md", "`nobody` is the name of an account.\n"),
        ("a.yaml", "key: whoever writes a value writes no comment\n"),
    ],
)
def test_plain_text_and_code_pass(path, content):
    """Plain sentences pass, and so does text that is not prose."""
    assert find_habits(path, content) == []


def test_a_finding_names_file_line_and_remedy():
    """A finding says where the sentence stands and how to write it instead."""
    (finding,) = find_habits("docs/page.md", "Fine here.\n\nThe process restarts anew after it.\n")
    assert str(finding) == "docs/page.md:3: again, restart: The process restarts anew after it."
