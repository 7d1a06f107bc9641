"""A rollout against a Service in memory, and the progress that the page sees."""

import copy
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from kndashboard.rollouts import rollouts
from kubeyaml import edits
from tools.deployment.kn import Kn, KnError, traffic, url_of
from tools.rollout.comparison import TrialAnswer
from tools.rollout.conductor import Conductor, RolloutOutcome, RolloutPace
from tools.rollout.decisions import CandidateLimits, Rollout
from tools.rollout.journal import RolloutJournal, journal_of
from tools.rollout.trials import TrialClient

OLD, NEW = "rank-items-00001", "rank-items-00002"


class Recorded(Kn):
    """
    A Service in memory that applies every command immediately; a changed template makes a new revision.

    Attributes:
        refuses: The Service refuses a command that contains this word.
        shares: The candidate's share of the traffic after each update.
    """

    def __init__(self, journal: RolloutJournal) -> None:
        super().__init__(["kn"])
        self.journal = journal
        template = {"spec": {"containers": [{"image": "rank-items:v1", "env": [{"name": "A", "value": "1"}]}]}}
        self.body: dict[str, Any] = {"metadata": {"name": "rank-items"}, "spec": {"template": template}}
        self.latest, self.refuses, self.shares = 1, "nothing", list[int]()
        self.take_effect()

    def take_effect(self) -> None:
        latest = f"rank-items-{self.latest:05}"
        targets = self.body["spec"].get("traffic") or copy.deepcopy(list(edits.LATEST))
        shown = [{"revisionName": latest, **target, "url": f"http://{target.get('tag')}"} for target in targets]
        names = {"latestReadyRevisionName": latest, "latestCreatedRevisionName": latest}
        self.body["status"] = {"url": "http://live", **names, "traffic": shown}
        self.shares.append(traffic(self.body).get(NEW, 0))

    def _run(self, words: Sequence[str]) -> str:
        if words[1] == "describe":
            return json.dumps(self.body)
        if self.refuses in words:
            raise KnError(f"{self.refuses} is refused")
        flags = {flag: list[str]() for flag in ("--tag", "--untag", "--traffic", "--env", "--image")}
        for flag, value in itertools.pairwise(words):
            if flag in flags:
                flags[flag] = [*flags[flag], value]
        before = copy.deepcopy(self.body["spec"]["template"])
        edits.set_env(self.body, flags["--env"])
        for image in flags["--image"]:
            edits.container(self.body)["image"] = image
        changed = self.body["spec"]["template"] != before
        self.latest += changed
        self.body["spec"]["traffic"] = edits.traffic(
            self.body, tags=flags["--tag"], untags=flags["--untag"], shares=flags["--traffic"], mutation=changed
        )
        self.take_effect()
        return ""

    def spec_traffic(self) -> list[dict[str, Any]]:
        return self.body["spec"].get("traffic") or [dict(target) for target in edits.LATEST]


class ScriptedDoor(TrialClient):
    """Return answers that depend on the candidate's share of the traffic."""

    def __init__(self, url: str, kn: Recorded, answer: Callable[[str, int], TrialAnswer]) -> None:
        super().__init__(url)
        self._kn, self._answer = kn, answer

    def ask(self, body: bytes) -> TrialAnswer:
        return self._answer(self.url, traffic(self._kn.body).get(NEW, 0))


def good(url: str, share: int) -> TrialAnswer:
    return TrialAnswer(5.0, ranking=("a", "b"), revision=NEW if url == "http://candidate" or share == 100 else OLD)


@pytest.fixture
def kn(tmp_path: Path) -> Recorded:
    return Recorded(RolloutJournal(tmp_path / "rollouts/.rank-items.json"))


def roll_out(kn: Recorded, answer: Callable[[str, int], TrialAnswer] = good) -> tuple[RolloutOutcome, list[str]]:
    said: list[str] = []
    conductor = Conductor(
        "rank-items",
        kn,
        kn.journal,
        lambda service, tag: ScriptedDoor(url_of(service, tag), kn, answer),
        [b"1"],
        RolloutPace(requests=8, least_s=0.0),
        said.append,
    )
    return conductor.run(Rollout([5, 25, 100], CandidateLimits(min_overlap=0.9)), ["--image", "rank-items:v2"]), said


def test_a_good_candidate_is_promoted(kn):
    """The candidate starts without traffic and takes every step; then the Service follows its latest revision."""
    outcome, said = roll_out(kn)
    assert (outcome.promoted, outcome.current, outcome.candidate) == (True, OLD, NEW)
    assert kn.shares == [0, 0, 5, 25, 100, 100]
    assert kn.body["spec"]["traffic"] == [{"latestRevision": True, "percent": 100}]
    assert [step.share for step in outcome.seen] == [0, 5, 25, 100]
    assert said[-1] == f"promoted {NEW}"


@pytest.mark.parametrize("step", [0, 5, 25, 100])
def test_a_failing_candidate_is_rolled_back(kn, step):
    """After a failure at any step, the template is restored and the traffic follows the latest revision as before."""

    def failing(url: str, share: int) -> TrialAnswer:
        bad = url == "http://candidate" and share == step
        return TrialAnswer(5.0, fault="status 500", revision=NEW) if bad else good(url, share)

    outcome, said = roll_out(kn, failing)
    assert not outcome.promoted
    assert [each.share for each in outcome.seen][-1] == step
    assert outcome.reasons[0].endswith("for instance: status 500")
    assert kn.shares[-1] == 0
    assert traffic(kn.body) == {"rank-items-00003": 100}
    assert edits.container(kn.body)["image"] == "rank-items:v1"
    assert kn.body["spec"]["traffic"] == [{"latestRevision": True, "percent": 100}]
    assert said[-1].startswith(f"rolling back to {OLD}")


def test_live_failures_without_a_revision_count_against_the_candidate(kn):
    """A live failure that names no revision counts while the candidate has traffic."""

    def failing(url: str, share: int) -> TrialAnswer:
        return TrialAnswer(1.0, fault="no answer") if url == "http://live" and share else good(url, share)

    outcome, _ = roll_out(kn, failing)
    assert "live requests failed" in outcome.reasons[0]
    assert outcome.seen[-1].share == 5


def test_an_update_by_another_user_ends_the_rollout(kn):
    """The rollout rolls back when the tag leads to a revision that it has not measured."""

    def meddling(url: str, share: int) -> TrialAnswer:
        if kn.latest == 2 and not share:
            kn.latest = 3
            kn.take_effect()
        return good(url, share)

    outcome, _ = roll_out(kn, meddling)
    assert outcome.reasons[0] == "another update of rank-items interferes: the candidate became rank-items-00003"
    assert traffic(kn.body) == {OLD: 100}


def test_a_candidate_that_cannot_be_created_changes_nothing(kn):
    """The outcome names kn's reason, and the traffic stays as it was."""
    kn.refuses = "--image"
    outcome, _ = roll_out(kn)
    assert outcome.reasons == ["--image is refused"]
    assert traffic(kn.body) == {OLD: 100}
    assert outcome.candidate is None


def test_a_failed_rollback_is_reported(kn):
    """The outcome names the command that the operator has to run by hand."""

    def failing(url: str, share: int) -> TrialAnswer:
        kn.refuses = "--no-wait"
        return TrialAnswer(1.0, fault="status 500") if url == "http://candidate" else good(url, share)

    outcome, said = roll_out(kn, failing)
    assert outcome.reasons[-1].endswith(f"by hand: kn service update rank-items --traffic {OLD}=100")
    assert "rolling back failed" in said[-1]


def test_leftover_tags_are_removed(kn):
    """A rollout removes the tags of an earlier one, which would be in its way."""
    kn.body["spec"]["traffic"] = [{"latestRevision": True, "percent": 100, "tag": "candidate"}]
    kn.take_effect()
    outcome, _ = roll_out(kn)
    assert outcome.promoted


def test_an_update_without_a_change_is_not_a_rollout(kn):
    """An update that makes no new revision leaves nothing to compare."""
    kn.body["spec"]["template"]["spec"]["containers"][0]["image"] = "rank-items:v2"
    outcome, _ = roll_out(kn)
    assert outcome.reasons == ["the flags change nothing, so no new revision was made"]


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
