"""Arguments whose bytes are no text."""

import os

import pytest

from tools.cli.verbs import main

GARBLED = os.fsdecode(b"ann\xe9")


@pytest.mark.parametrize("words", [["users", "erase"], ["users", "show"], ["recommend"]], ids=" ".join)
def test_an_argument_that_is_no_text_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A user's id is text. The message shows the bytes."""
    assert main([*words, GARBLED]) == 2
    assert capsys.readouterr().err == (
        "./run.sh: the argument 'ann\\\\xe9' is not UTF-8; correct it, or rename the file\n"
    )
