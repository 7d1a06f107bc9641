"""`spec.traffic` before a rollout and after it, for every way a rollout can end."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubeyaml import edits
from tests.rollout.test_conductor import NEW, OLD, Recorded, good, kn, roll_out
from tests.running import ROOT
from tools.deployment.kn import KnError, traffic
from tools.rollout.comparison import TrialAnswer
from tools.rollout.journal import RolloutJournal

__all__ = ["kn"]

BEFORE: dict[str, list[dict[str, Any]] | None] = {
    "never said": None,
    "latest": [{"latestRevision": True, "percent": 100}],
    "latest beside another tag": [
        {"latestRevision": True, "percent": 100},
        {"revisionName": OLD, "percent": 0, "tag": "former"},
    ],
    "pinned": [{"revisionName": OLD, "percent": 100}],
    "pinned with a tag": [{"revisionName": OLD, "percent": 100, "tag": "stable"}],
}
Ask = Callable[[str, int], TrialAnswer]


def failing(_: Recorded) -> Ask:
    """The candidate answers with errors once it has a quarter of the traffic."""
    return lambda url, share: TrialAnswer(1.0, fault="status 500", revision=NEW) if share == 25 else good(url, share)


def interrupted(_: Recorded) -> Ask:
    """Ctrl-C, SIGTERM or a closed terminal in the middle of a step."""

    def ask(url: str, share: int) -> TrialAnswer:
        if share == 5:
            raise KeyboardInterrupt
        return good(url, share)

    return ask


def broken(_: Recorded) -> Ask:
    """A fault of the program itself."""

    def ask(url: str, share: int) -> TrialAnswer:
        if share == 5:
            raise ZeroDivisionError("a fault")
        return good(url, share)

    return ask


def refused_in_between(kn: Recorded) -> Ask:
    """kn refuses the second step."""
    kn.refuses = "candidate=25"
    return good


def refused_at_first(kn: Recorded) -> Ask:
    """kn refuses the candidate."""
    kn.refuses = "rank-items:v2"
    return good


def described(kn: Recorded, wanted: list[dict[str, Any]] | None) -> list[tuple[Any, ...]]:
    """Prepare the Service; return its targets."""
    if wanted is not None:
        kn.body["spec"]["traffic"] = copy.deepcopy(wanted)
    kn.take_effect()
    return targets(kn)


def targets(kn: Recorded) -> list[tuple[Any, ...]]:
    return sorted((t.get("revisionName") or "@latest", t.get("percent") or 0, t.get("tag")) for t in kn.spec_traffic())


@pytest.mark.parametrize("wanted", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("end", [failing, interrupted, broken, refused_in_between, refused_at_first])
def test_a_rollout_that_fails_leaves_the_traffic_as_it_was(kn, end, wanted):
    """Traffic that followed the latest revision follows it again, pinned traffic is pinned, and other tags stay."""
    before = described(kn, wanted)
    outcome, _ = roll_out(kn, end(kn))
    assert not outcome.promoted
    assert outcome.interrupted == (end is interrupted)
    assert not any("by hand" in reason for reason in outcome.reasons)
    assert targets(kn) == before
    assert edits.container(kn.body)["image"] == "rank-items:v1"
    assert kn.journal.unfinished() is None
    # Nothing but the candidate's own steps gave traffic to the candidate, in any state in between.
    assert all(later == 0 for later in kn.shares[kn.shares.index(max(kn.shares)) + 1 :])


@pytest.mark.parametrize("wanted", BEFORE.values(), ids=BEFORE)
def test_a_promoted_candidate_serves_as_the_former_revision_did(kn, wanted):
    """It is the latest where the traffic followed the latest, and named where a revision was named."""
    before = described(kn, wanted)
    outcome, _ = roll_out(kn)
    assert outcome.promoted
    serving = [(name, percent) for name, percent, _ in targets(kn) if percent]
    assert serving == [(NEW if name == OLD else name, percent) for name, percent, _ in before if percent]
    assert traffic(kn.body) == {NEW: 100}


@pytest.mark.parametrize("wanted", BEFORE.values(), ids=BEFORE)
def test_a_killed_rollout_is_undone_by_the_next(kn, wanted):
    """SIGKILL in the middle of a step: the next rollout restores the Service before it begins."""
    before = described(kn, wanted)

    class Killed(BaseException):
        """As if the process ended here."""

    def ask(url: str, share: int) -> TrialAnswer:
        if share == 25:
            raise Killed
        return good(url, share)

    with pytest.raises(Killed):
        roll_out(kn, ask)
    assert targets(kn) != before
    kn.refuses = "rank-items:v2"
    outcome, said = roll_out(kn)
    assert "an earlier rollout was killed" in said[0]
    assert outcome.reasons == ["rank-items:v2 is refused"]
    assert targets(kn) == before
    assert edits.container(kn.body)["image"] == "rank-items:v1"


def test_what_was_tidied_up_since_is_left_alone(kn):
    """A Service without the tags of the killed rollout was changed since, and stays as it is."""
    described(kn, None)
    with kn.journal.held():
        kn.journal.begin({"spec": {"traffic": [{"revisionName": "another", "percent": 100}]}})
    outcome, said = roll_out(kn)
    assert outcome.promoted
    assert not any("killed" in line for line in said)


def test_a_tag_on_the_latest_revision_is_in_the_way(kn):
    """kn would have to move that tag, so it refuses the candidate and says which flag would do it."""
    before = described(kn, [{"latestRevision": True, "percent": 100, "tag": "stable"}])
    outcome, _ = roll_out(kn)
    assert "--untag stable" in outcome.reasons[0]
    assert targets(kn) == before


def test_a_foreign_revision_gets_no_traffic(kn):
    """If another update made a revision, the former revision keeps the traffic and the report says how to go on."""
    described(kn, None)

    def meddling(url: str, share: int) -> TrialAnswer:
        if share == 5 and kn.latest == 2:
            edits.container(kn.body)["image"] = "rank-items:v3"
            kn.latest = 3
            kn.take_effect()
        return good(url, share)

    outcome, _ = roll_out(kn, meddling)
    assert traffic(kn.body) == {OLD: 100}
    assert edits.container(kn.body)["image"] == "rank-items:v3"
    assert "--traffic @latest=100" in outcome.reasons[-1]


def test_a_service_has_one_rollout_at_a_time(kn):
    """The second is refused and changes nothing."""
    described(kn, None)
    with kn.journal.held(), pytest.raises(KnError, match="another rollout of this Service is running"):
        roll_out(kn)
    assert kn.said == []


def test_a_journal_that_was_being_written_is_empty(tmp_path: Path):
    """A rollout killed before its first command has nothing to restore."""
    (tmp_path / "j").write_text('{"spec": {"tra')
    assert RolloutJournal(tmp_path / "j").unfinished() is None


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["rank-items", "--steps", "50,20"], 2), (["rank-items", "--steps", "x"], 2), ([], 2),
        (["rank-items", "--body-file", "/nowhere"], 2), (["rank-items", "--image", "x"], 1),
    ],
)  # fmt: skip
def test_wrong_words_are_told_from_failures(words, status, tmp_path):
    """Exit status 2 means wrong arguments, 1 any other failure."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.cli", "rollout", *words, "--state-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
