"""The exported lists and the served ones have the same bytes."""

import pytest

from tests.running import Running
from tools.cli.verbs import main

pytestmark = pytest.mark.may_block


def test_exported_lists_are_the_bytes_of_the_answers(pipeline, demo_state, tmp_path):
    """Each line of the file is the answer of recommend, for users all over the store."""
    target = tmp_path / "lists.jsonl"
    recommend: Running = pipeline.recommend
    assert main(["export", "--top-k", "7", "--to", str(target), "--state-dir", str(demo_state.folder)]) == 0
    lines = target.read_bytes().splitlines()
    assert len(lines) == 1000
    for line in lines[::50]:
        user = line.split(b'"')[3].decode()
        assert recommend.post({"user_id": user, "top_k": 7}).content == line
