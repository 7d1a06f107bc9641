"""The page shows experiments, the shadow and rollouts, from settings, metrics and the files that their verbs write."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kndashboard.changes import changes
from kndashboard.rollouts import rollouts
from kndashboard.settings import first_setting
from kndashboard.snapshots import Snapshot
from recsys.contracts.wire import Exploration
from recsys.experiments.declaration import Arm, Experiment
from recsys.experiments.ledger import DECLARATIONS, FIGURES, keep, keep_figures
from tests.kndashboard.seen import revision, service, snapshot, status
from tests.kndashboard.tried import RED, RED_URL, figures_of, outcome, progress
from tools.rollout.decisions import CandidateLimits
from tools.rollout.journal import journal_of
from tools.rollout.report import write_report

pytestmark = pytest.mark.may_block

# Linux and macOS number processes below 2**22.
NO_PROCESS = 2**30
MEASURED = """\
recsys_shadow_calls_total{outcome="compared"} 30
recsys_shadow_calls_total{outcome="failed"} 2
recsys_shadow_overlap_ratio_bucket{le="0.5"} 10
recsys_shadow_overlap_ratio_sum 24
recsys_shadow_overlap_ratio_count 30
recsys_hop_duration_seconds_sum{hop="rank_items"} 1
recsys_hop_duration_seconds_count{hop="rank_items"} 100
recsys_hop_duration_seconds_sum{hop="rank_items_shadow"} 0.6
recsys_hop_duration_seconds_count{hop="rank_items_shadow"} 30
recsys_experiment_calls_total{arm="red",experiment="colours",outcome="answered"} 7
recsys_experiment_calls_total{arm="red",experiment="colours",outcome="failed"} 1
"""


def objects(**settings: str) -> list[dict[str, Any]]:
    """Return recommend with *settings*, and rank-items with a tagged revision, as Kubernetes objects."""
    env = [{"name": name, "value": value} for name, value in settings.items()]
    targets = [{"revisionName": "rank-items-00002", "percent": 0, "tag": "red", "url": RED_URL}]
    return [
        {"spec": {"template": {"spec": {"containers": [{"env": env}]}}}},
        {"spec": {"template": {"spec": {"containers": [{}]}}}, "status": {"traffic": targets}},
    ]


def seen(*texts: str) -> Snapshot:
    pods = {f"recommend-00001-{number}": text for number, text in enumerate(texts, 1)}
    said = status(recommend=service(revision("recommend-00001", *["ready" for _ in pods])))
    return snapshot(0, said, pods)


def declared(*experiments: Experiment) -> str:
    return msgspec.json.encode(experiments).decode()


def test_nothing_that_is_tried_shows_nothing(tmp_path: Path) -> None:
    """Without settings, reports and a directory of reports, every part is empty."""
    nothing: dict[str, Any] = {"experiments": [], "shadow": None, "rollouts": {"running": [], "ended": []}}
    off = objects(EXPERIMENTS="-", SHADOW_RANK_ITEMS_URL="-")
    assert changes(off, tmp_path, seen()) == nothing
    assert changes([], None, seen()) == nothing


def test_an_experiment_is_shown_with_its_arms(tmp_path: Path) -> None:
    """Each arm has its share, the revision behind its tag, its settings, and the calls to its own revision."""
    explored = Arm("explored", 0.5, exploration=Exploration(0.1))
    calm = Experiment("calm", (Arm("a", 0.5, stopped=True), explored))
    found = changes(objects(EXPERIMENTS=declared(RED, calm)), tmp_path, seen(MEASURED, MEASURED))["experiments"]
    colours, other = found
    assert (colours["name"], colours["running"], colours["users"], colours["figures"]) == ("colours", True, 4000, None)
    control, red = colours["arms"]
    assert (control["share"], control["settings"], control["calls"], control["figures"]) == (0.5, {}, None, None)
    assert red["settings"] == {"revision": "rank-items-00002 #red", "diversity": 0.3}
    assert red["calls"] == {"answered": 14, "failed": 2}
    assert [(arm["stopped"], arm["settings"]) for arm in other["arms"]] == [(True, {}), (False, {"exploration": 0.1})]


def test_an_experiment_is_shown_with_the_figures_of_the_last_report(tmp_path: Path) -> None:
    """Figures belong to the experiment that they were computed for, not to a later one of the same name."""
    running = objects(EXPERIMENTS=declared(RED))
    keep_figures([figures_of("colours", at_us=2_000)], state_dir=tmp_path)
    (found,) = changes(running, tmp_path, seen())["experiments"]
    assert (found["figures"]["waiting"], found["figures"]["at_us"]) == (5, 2_000)
    assert [arm["figures"]["verdict"] for arm in found["arms"]] == ["", "worse"]
    keep_figures([figures_of("colours", at_us=500), figures_of("other", at_us=1)], state_dir=tmp_path)
    (found,) = changes(running, tmp_path, seen())["experiments"]
    assert (found["figures"], found["arms"][1]["figures"]) == (None, None)


def test_ended_experiments_follow_the_running_ones(tmp_path: Path) -> None:
    """The newest five that ended are shown, the newest first, without live calls."""
    ended = [msgspec.structs.replace(RED, name=f"e{number}", started_us=number) for number in range(7)]
    keep([RED, *ended], state_dir=tmp_path)
    found = changes(objects(EXPERIMENTS=declared(RED)), tmp_path, seen(MEASURED))["experiments"]
    assert [each["name"] for each in found] == ["colours", "e6", "e5", "e4", "e3", "e2"]
    assert [each["running"] for each in found] == [True] + [False] * 5
    assert found[1]["arms"][1]["calls"] is None


@pytest.mark.parametrize("content", ["{", "[{}]", "null", "\xff"])
def test_damaged_files_are_no_error(tmp_path: Path, content: str) -> None:
    """A damaged ledger is named as the problem. Damaged figures and reports of rollouts are left out."""
    (tmp_path / "rollouts").mkdir()
    for name in (FIGURES, "rollouts/a-1.json", "rollouts/.a.running.json"):
        (tmp_path / name).write_text(content, encoding="latin-1")
    keep([RED], state_dir=tmp_path)
    found = changes(objects(), tmp_path, seen())
    assert [each["figures"] for each in found["experiments"]] == [None]
    assert found["rollouts"] == {"running": [], "ended": []}
    (tmp_path / DECLARATIONS).write_text(content, encoding="latin-1")
    found = changes(objects(), tmp_path, seen())
    assert found["experiments"] == []
    assert "cannot be read" in found["problem"]


def test_the_shadow_is_compared_over_all_instances() -> None:
    """Copies by outcome, overlap, order and latency are those of all instances together."""
    services = objects(SHADOW_RANK_ITEMS_URL=RED_URL, SHADOW_SHARE="0.05")
    assert changes(services, None, seen(MEASURED, MEASURED))["shadow"] == {
        "revision": "rank-items-00002 #red",
        "share": "0.05",
        "copies": {"compared": 60, "failed": 4, "dropped": 0},
        "overlap": 0.8,
        "order": None,
        "latency_s": {"serving": 0.01, "shadow": 0.02},
    }


def test_reports_of_rollouts_are_shown(tmp_path: Path) -> None:
    """The page reads the reports that a rollout writes: verdict, reasons, and the figures of each step."""
    write_report(tmp_path, outcome(promoted=False), CandidateLimits())
    (ended,) = rollouts(tmp_path)["ended"]
    assert (ended["service"], ended["candidate"], ended["promoted"], ended["reasons"]) == (
        "rank-items", "new", False, ("slow",),
    )  # fmt: skip
    (step,) = ended["seen"]
    assert (step["share"], step["candidate"]["requests"], step["live"]["faults"]) == (5, 1, 0)
    assert (step["overlap"], step["correlation"]) == (1.0, 1.0)


def test_the_newest_reports_come_first(tmp_path: Path) -> None:
    """The time in the name of a report decides, not the name of the Service."""
    write_report(tmp_path, outcome(promoted=True), CandidateLimits())
    (written,) = tmp_path.glob("*.json")
    for number in range(7):
        content = json.loads(written.read_text()) | {"service": f"s{number}"}
        (tmp_path / f"s{9 - number}-2026110{number}T000000Z.json").write_text(json.dumps(content))
    written.unlink()
    assert [each["service"] for each in rollouts(tmp_path)["ended"]] == ["s6", "s5", "s4", "s3", "s2"]


def test_a_running_rollout_is_shown_until_it_ends(tmp_path: Path) -> None:
    """The progress names the step under way, and whether the process still runs; the end of the rollout removes it."""
    journal = journal_of("rank-items", tmp_path)
    journal.note(progress())
    (running,) = rollouts(tmp_path)["running"]
    assert (running["share"], running["steps"], running["pid"], running["alive"]) == (5, (0, 5, 100), os.getpid(), True)
    path = next(tmp_path.glob(".*.running.json"))
    path.write_text(json.dumps(progress() | {"pid": NO_PROCESS}))
    assert [each["alive"] for each in rollouts(tmp_path)["running"]] == [False]
    journal.end()
    assert rollouts(tmp_path) == {"running": [], "ended": []}


def test_a_progress_that_cannot_be_written_stops_no_rollout(tmp_path: Path) -> None:
    """A rollout goes on without its progress on the page."""
    journal_of("rank-items", tmp_path / "missing").note({})
    assert not (tmp_path / "missing").exists()


def test_a_setting_of_the_first_service_that_declares_it_counts() -> None:
    """A Service without the setting does not hide that of another, and a setting that is off counts as none."""
    assert first_setting([*objects(), *objects(A="1"), *objects(A="2")], "A") == "1"
    assert first_setting(objects(A="-"), "A") == ""
