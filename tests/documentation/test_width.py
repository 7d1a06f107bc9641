"""The pages wrap at 100 columns, so that a change of a sentence is a change of few lines."""

import re

from tests.documentation.pages import name, pages


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
