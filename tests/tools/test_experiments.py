"""`./run.sh experiments`: start, stop, list, plan and guard change the setting of recommend; the report analyses."""

import asyncio
import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from offline.experiments.analysis import Analysis, ArmResult
from offline.experiments.health import ArmHealth
from offline.experiments.sample_size import plan_users
from offline.experiments.sequences import Sample, compare
from offline.state import Current, StateDirectory
from recstore.exposures.records import Action, Exposure, ShownItem
from recstore.exposures.urls import open_exposures
from recsys.experiments.declaration import Arm, Experiment
from recsys.experiments.ledger import keep, read_figures, read_ledger
from recsys.records import UserRecord
from tests.offline.tastes import fill
from tools.cli.verbs import main
from tools.experiment_figures import describe, summarise
from tools.guard import find_worse
from tools.running_experiments import find_slice, split_arm

pytestmark = pytest.mark.may_block

HOUR_US = 3_600_000_000
KN = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1]); _, verb, name, *flags = sys.argv[2:]
path = folder / f"{name}.json"
if not path.exists():
    sys.exit(f"Error: no service {name}")
service = json.loads(path.read_text())
if verb == "describe":
    print(json.dumps(service))
for flag, value in zip(flags, flags[1:]):
    if flag == "--env":
        setting, _, text = value.partition("=")
        service["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": setting, "value": text}]
path.write_text(json.dumps(service))
"""
Experiments = Callable[..., int]


@pytest.fixture
def services(tmp_path: Path) -> Path:
    """Return a folder with the Services that a stand-in for kn shows and changes."""
    (tmp_path / "kn.py").write_text(KN)
    plain = {"spec": {"template": {"spec": {"containers": [{"env": [{"name": "EXPERIMENTS", "value": "-"}]}]}}}}
    (tmp_path / "recommend.json").write_text(json.dumps(plain))
    tagged = {"status": {"traffic": [{"revisionName": "rank-items-2", "tag": "red", "url": "http://red-rank-items"}]}}
    (tmp_path / "rank-items.json").write_text(json.dumps(tagged))
    return tmp_path


@pytest.fixture
def experiments(services: Path) -> Experiments:
    command = shlex.join([sys.executable, str(services / "kn.py"), str(services)])

    def run(*words: str) -> int:
        return main(
            ["experiments", *words, "--namespace", "shop", "--kn", command, "--state-dir", str(services / "state")]
        )

    return run


def declared(services: Path, name: str = "recommend") -> list[dict[str, Any]]:
    service = json.loads((services / f"{name}.json").read_text())
    (variable,) = service["spec"]["template"]["spec"]["containers"][0]["env"]
    return list(json.loads(variable["value"])) if variable["value"] != "-" else []


def test_an_experiment_starts_is_listed_and_stops(services, experiments, capsys):
    """The address of a tag, the settings of arms and the plan go into the setting; the ledger keeps what stopped."""
    assert experiments("start", "colours", "--arm", "control=50%", "--arm", "red=0.5,tag=red", "--users", "4000") == 0
    (found,) = declared(services)
    assert (found["name"], found["users"]) == ("colours", 4000)
    assert found["arms"] == [
        {"name": "control", "share": 0.5},
        {"name": "red", "share": 0.5, "url": "http://red-rank-items"},
    ]
    assert experiments("start", "calm", "--arm", "a=50%", "--arm", "b=50%,diversity=0.3,exploration=10%") == 0
    assert declared(services)[1]["arms"][1]["exploration"]["share"] == 0.1
    capsys.readouterr()
    assert experiments("list") == 0
    said = capsys.readouterr().out
    assert "red 50%: url http://red-rank-items" in said
    assert "b 50%: diversity 0.3, exploration 0.1" in said
    assert experiments("stop", "colours", "--arm", "red") == 0
    assert declared(services)[0]["arms"][1]["stopped"]
    assert experiments("stop", "colours") == 0
    assert [each["name"] for each in declared(services)] == ["calm"]
    assert experiments("stop", "calm") == 0
    assert declared(services) == []
    assert [each.name for each in read_ledger(services / "state")] == ["colours", "calm"]


def test_experiments_of_a_layer_get_free_slices(services, experiments, capsys):
    """The second experiment of a layer gets the next slice, and a third one that does not fit is refused."""
    arms = ("--arm", "a=50%", "--arm", "b=50%,diversity=0.3", "--layer", "list")
    assert experiments("start", "one", *arms, "--share", "40%") == 0
    assert experiments("start", "two", *arms, "--share", "50%") == 0
    assert [each.get("offset", 0) for each in declared(services)] == [0, 0.4]
    assert experiments("start", "three", *arms, "--share", "20%") == 1
    assert "no free slice" in capsys.readouterr().err
    assert experiments("stop", "one") == 0
    assert experiments("start", "three", *arms, "--share", "20%") == 0
    two, three = (Experiment(each, (Arm("a", 0.5), Arm("b", 0.5)), layer="list") for each in ("two", "three"))
    two = msgspec.structs.replace(two, offset=0.4, share=0.5)
    assert find_slice([msgspec.structs.replace(three, share=0.2), two], "list", 0.2) == 0.2
    assert find_slice([two], "other", 1.0) == 0.0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("start", "One", "--arm", "a=50%", "--arm", "b=50%"), "name must match"),
        (("start", "one", "--arm", "a=50%", "--arm", "b=40%"), "add up to 1"),
        (("start", "one", "--arm", "a=50%", "--arm", "b=half"), "'half' is not a number"),
        (("start", "one", "--arm", "a", "--arm", "b=50%"), "write NAME=SHARE"),
        (("start", "one", "--arm", "a=50%", "--arm", "b=50%,colour=red"), "'colour' is not a setting"),
        (("start", "one", "--arm", "a=50%", "--arm", "b=50%,tag=green"), "no tag 'green'"),
        (("start", "one", "--arm", "a=50%", "--arm", "b=50%,diversity=2"), "<= 1"),
        (("stop", "none"), "no experiment 'none' runs"),
    ],
)
def test_a_faulty_command_changes_nothing(services, experiments, capsys, words, said):
    """The fault is named, and the setting stays."""
    assert experiments(*words) == 1
    assert said in capsys.readouterr().err
    assert declared(services) == []


def test_wrong_words_are_refused(experiments, capsys):
    """A start without a name or with one arm, and a deviation without a rate, are wrong arguments."""
    for words in (
        ("start",),
        ("start", "one", "--arm", "a=100%"),
        ("plan", "--deviation", "1"),
        ("list", "--rate", "1"),
    ):
        assert experiments(*words) == 2
    assert "needs" in capsys.readouterr().err


def test_a_plan_says_how_many_users(experiments, capsys):
    """The plan depends on rate, deviation, lift and shares, and needs no pipeline."""
    assert experiments("plan", "--rate", "0.5", "--deviation", "0.5", "--lift", "10%") == 0
    assert capsys.readouterr().out.startswith("6632 users")
    assert experiments("plan", "--rate", "0.5", "--lift", "10%", "--arm", "a=90%", "--arm", "b=10%") == 0
    assert int(capsys.readouterr().out.split()[0]) > 20_000


def test_a_plan_reads_the_log(logged, tmp_path, capsys):
    """Without a rate, the plan takes mean and deviation of the users of the log, as the report will compare them."""
    plan = ["experiments", "plan", "--lift", "10%", "--state-dir", str(logged)]
    assert main(plan) == 0
    # 360 of 1,200 users click; the last user of the log has no list whose time is over.
    found = re.match(
        r"1200 users of the log: 0.3000 actions per list, standard deviation 0.458\d\n(\d+) users",
        capsys.readouterr().out,
    )
    assert found
    assert int(found[1]) == plan_users(0.3, (0.21 * 1200 / 1199) ** 0.5, lift=0.1)
    assert main([*plan, "--follow", "100h"]) == 1
    assert "the log has 0 users whose time is over" in capsys.readouterr().err
    assert main(["experiments", "plan", "--state-dir", str(tmp_path / "empty")]) == 1
    assert "./run.sh train" in capsys.readouterr().err


def test_the_parts_of_an_arm():
    """An arm is a name, a share and settings."""
    assert split_arm("red=25%,tag=x,diversity=0.1") == (Arm("red", 0.25), {"tag": "x", "diversity": "0.1"})


@pytest.fixture
def logged(services: Path) -> Path:
    """Return the state directory of a log of an experiment: users of the arm `red` click half as often."""
    entries: list[Exposure | Action] = []
    for number in range(1200):
        arm, most = ("red", 2) if number % 2 else ("control", 4)
        user = f"u{number:04}"
        entries.append(Exposure("x", user, HOUR_US, SHOWN, "ials", "1", "layout,colours", f"old,{arm}"))
        if number // 2 % 10 < most:
            entries.append(Action(f"{number:032x}", user, HOUR_US + 1, "click", "a", "x"))
    entries.append(Exposure("x", "zoe", 90 * HOUR_US, SHOWN, "ials", "1"))
    return write_log(services, entries)


SHOWN = (ShownItem("a", 1),)


def write_log(services: Path, entries: Sequence[Exposure | Action]) -> Path:
    """Write a store with *entries* in its log; return its state directory."""
    state = StateDirectory(services / "state")
    with state.locked():
        state.advance(Current("stores/1-test.db", "models/1-none", "test"))
    url = fill(state.folder / "stores/1-test.db", [UserRecord("ann", "55+")])

    async def note() -> None:
        async with aclosing(open_exposures(url, retention_s=10**12)) as log:
            await log.note(entries)

    asyncio.run(note())
    return state.folder


RED = Experiment("colours", (Arm("control", 0.5), Arm("red", 0.5, url="http://red-rank-items")), users=1000)


def test_the_report_analyses_started_experiments(logged, capsys):
    """The arm with half the clicks is called worse, in text and in JSON; an experiment that never started is not analysed."""
    assert main(["experiments", "report", "--state-dir", str(logged), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["analyses"] == []
    keep([RED], state_dir=logged)
    assert main(["experiments", "report", "--state-dir", str(logged)]) == 0
    said = capsys.readouterr().out
    assert "red: 600 users, 0.2000, -50.0%" in said
    assert "(valid at every look): worse" in said
    assert "red: 600 lists, 0.00% failed, p99 -" in said
    (kept,) = read_figures(logged)
    assert [(arm.name, arm.users, arm.verdict) for arm in kept.arms] == [("control", 600, ""), ("red", 600, "worse")]
    assert main(["experiments", "report", "colours", "--state-dir", str(logged), "--json"]) == 0
    (analysis,) = json.loads(capsys.readouterr().out)["analyses"]
    assert analysis["arms"][1]["lift"]["high"] < 0
    assert main(["experiments", "report", "colours", "--state-dir", str(logged), "--follow", "100h"]) == 0
    assert "1200 users are still followed" in capsys.readouterr().out


def test_the_guard_stops_a_worse_arm(logged, services, experiments, capsys):
    """The worse arm gets the default from then on; a second run has nothing to stop."""
    assert experiments("start", "colours", "--arm", "control=50%", "--arm", "red=50%,tag=red") == 0
    service = (services / "recommend.json").read_text()
    began = declared(services)[0]["started_us"]
    (services / "recommend.json").write_text(service.replace(str(began), "1"))
    keep([RED], state_dir=logged)
    capsys.readouterr()
    assert experiments("guard") == 0
    assert "stopping red: fewer actions than control" in capsys.readouterr().out
    assert declared(services)[0]["arms"][1]["stopped"]
    assert experiments("guard") == 0
    assert capsys.readouterr().out == ""


def test_the_guard_keeps_what_changes_during_its_analysis(logged, services, experiments, monkeypatch):
    """The guard leaves alone what another command has stopped or started since it read the experiments."""
    arms = ("--arm", "control=50%", "--arm", "red=50%,tag=red")
    assert experiments("start", "colours", *arms) == 0

    def find(*_: object, **__: object) -> list[str]:
        assert experiments("stop", "colours") == 0
        assert experiments("start", "shades", *arms) == 0
        return ["red"]

    monkeypatch.setattr("tools.guard.find_worse", find)
    assert experiments("guard") == 0
    assert [each["name"] for each in declared(services)] == ["shades"]


@pytest.mark.parametrize(
    ("red", "said"),
    [
        ((240_000, 0), "stopping red: its p99 is 240 ms, that of control 80 ms"),
        ((80_000, 4), "stopping red: 25.00% of its lists failed, 0.00% of control"),
        ((90_000, 0), ""),
    ],
)
def test_the_guard_stops_an_arm_that_is_slow_or_fails(services, experiments, capsys, red, said):
    """A slow arm and a failing arm are stopped within minutes, with the figures; an arm like the control is not."""
    entries = []
    for number in range(1200):
        arm, (most_us, fails) = ("red", red) if number % 2 else ("control", (80_000, 0))
        # Each tenth list takes longest, so the 99th percentile is that time.
        took_us = most_us if number // 2 % 10 == 0 else 20_000
        failed = bool(fails) and number // 2 % fails == 0
        entries.append(
            Exposure("x", f"u{number:04}", HOUR_US, SHOWN, "ials", "1", "colours", arm, took_us=took_us, failed=failed)
        )
    write_log(services, entries)
    assert experiments("start", "colours", "--arm", "control=50%", "--arm", "red=50%,tag=red") == 0
    service = (services / "recommend.json").read_text()
    (services / "recommend.json").write_text(service.replace(str(declared(services)[0]["started_us"]), "1"))
    capsys.readouterr()
    assert experiments("guard") == 0
    assert said in capsys.readouterr().out
    assert declared(services)[0]["arms"][1].get("stopped", False) is bool(said)


def test_a_report_repeats(logged, monkeypatch, capsys):
    """With --every, a report that failed is tried again, and each report renews the figures, until Ctrl-C."""
    keep([RED], state_dir=logged)
    (logged / "current.json").rename(logged / "moved.json")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            (logged / "moved.json").rename(logged / "current.json")
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr("tools.experiments.time.sleep", pause)
    assert main(["experiments", "report", "--every", "60s", "--state-dir", str(logged)]) == 130
    said = capsys.readouterr()
    assert "nothing was trained here yet" in said.err
    assert "(valid at every look): worse" in said.out
    assert [each.name for each in read_figures(logged)] == ["colours"]
    assert all(0 <= seconds <= 60 for seconds in pauses)


def test_an_unsound_experiment_stops_nothing(logged, services, experiments, capsys):
    """If users are not in the arms as declared, the guard says so and changes nothing."""
    assert experiments("start", "colours", "--arm", "control=20%", "--arm", "red=80%,tag=red") == 0
    service = (services / "recommend.json").read_text()
    (services / "recommend.json").write_text(service.replace(str(declared(services)[0]["started_us"]), "1"))
    assert experiments("guard") == 0
    assert "not in the arms as declared" in capsys.readouterr().err
    assert "stopped" not in declared(services)[0]["arms"][1]


def test_an_arm_without_a_change_is_not_stopped():
    """The guard names only arms that change something."""
    plain = Experiment("colours", (Arm("control", 0.5), Arm("red", 0.5)))
    assert find_worse(plain, [], kinds=[frozenset({"click"})], followed_us=1) == []


def test_an_arm_without_users_shows_no_mean():
    """Before any user's time is over, the report says so, instead of a mean of nothing."""
    empty = ArmResult("control", Sample.of(np.array([])), None)
    analysis = Analysis("ranker", [empty], 1.0, 0, waiting=3, adjusted=0)
    said = describe(summarise(analysis, [ArmHealth("control", 0, 0.0, None)], followed_us=1, at_us=1))
    assert said[1] == "  control: 0 users; no user counts yet"


def test_a_control_without_actions_leaves_a_verdict():
    """An arm that is better than a control without actions is called so, and the change has no interval."""
    samples = [Sample.of(np.zeros(200)), Sample.of(np.arange(200.0) % 2)]
    arms = [
        ArmResult("control", samples[0], None),
        ArmResult("red", samples[1], compare(samples[1], samples[0], planned=100)),
    ]
    healths = [ArmHealth(each.name, 200, 0.0, None) for each in arms]
    figures = summarise(Analysis("ranker", arms, 1.0, 0, waiting=0, adjusted=0), healths, followed_us=1, at_us=1)
    assert "red: 200 users, 0.5000: better; the mean of the control may be 0" in describe(figures)[2]
