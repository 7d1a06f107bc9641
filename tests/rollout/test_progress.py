"""The progress that a rollout keeps for the page, from its first step to its end."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kndashboard.rollouts import rollouts
from tests.rollout.test_conductor import NEW, OLD, Recorded, good, kn, roll_out
from tools.rollout.comparison import TrialAnswer
from tools.rollout.journal import journal_of

__all__ = ["kn"]


def failing(url: str, share: int) -> TrialAnswer:
    return TrialAnswer(5.0, fault="status 500", revision=NEW) if share == 25 else good(url, share)


@pytest.mark.parametrize(("answer", "steps"), [(good, [0, 5, 25, 100]), (failing, [0, 5, 25])])
def test_the_page_sees_each_step(
    kn: Recorded, tmp_path: Path, answer: Callable[[str, int], TrialAnswer], steps: list[int]
) -> None:
    """During a step, the page sees the step, the comparisons before it, and both revisions; after the end, nothing."""
    kn.journal = journal_of("rank-items", tmp_path)
    seen: dict[int, tuple[str, str, tuple[int, ...]]] = {}

    def look(url: str, share: int) -> TrialAnswer:
        # The first requests warm the candidate up, before any step.
        for each in rollouts(tmp_path)["running"]:
            seen[each["share"]] = each["current"], each["candidate"], tuple(step["share"] for step in each["seen"])
        return answer(url, share)

    outcome, _ = roll_out(kn, look)
    assert outcome.promoted is (answer is good)
    assert seen == {share: (OLD, NEW, tuple(steps[:at])) for at, share in enumerate(steps)}
    assert rollouts(tmp_path)["running"] == []
