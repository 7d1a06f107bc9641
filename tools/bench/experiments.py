"""
Benchmark of what the analysis of experiments finds on the running pipeline.

People whom the pipeline does not know come, view an item, look at lists, and click by planted tastes. All events go
through the Broker, and the analysis reads the exposure log.

    pilot                      people before any experiment; the plan of the experiments rests on their values
    lift                       people of one arm click more often; all experiments run at the same time
    equal arms                 other hashes put the same people into arms that do not differ
    equal arms with a history  as before, and the first list of each person counts as history (CUPED)

The experiments with a lift lie in layers of equal slices, so each person is in one experiment of each layer. A look
follows after each hundredth of the planned users. The columns `above`, `below` and `missed` count the experiments with an
interval above 0, below 0, or without the truth, at any look.
"""

import asyncio
import math
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import chain, count, groupby
from pathlib import Path

import numpy as np

from chassis.wire.transport import HttptoolsTransport
from loadtests.people import People, demo_people
from loadtests.simulation import Simulated, receive_newcomers
from offline.experiments.analysis import DAY_US, UserValue, conclude, gather_users, value_of
from offline.experiments.checks import adjust
from offline.experiments.sample_size import POWER, plan_users
from offline.experiments.sequences import ALPHA, LEAST_USERS, Sample
from recstore.exposures.records import ExposureOutcome
from recstore.exposures.urls import open_exposures
from recsys.client import AsyncClient
from recsys.experiments.assignment import SEPARATOR, Assignment, Treatment, arm_of, point
from recsys.experiments.declaration import Arm, Experiment
from tools.bench.pipeline import train_demo
from tools.bench.report import BenchReport, BenchTarget, ReportRow
from tools.deployment.kn import kn_of
from tools.running import RunningPipeline, pipeline_running
from tools.running_experiments import declare

LIFT = 0.1
_RAISED = "raised"
_ARMS = (Arm("control", 0.5), Arm(_RAISED, 0.5))
_CLICKS = frozenset({"click"})
_LISTS, _TOP_K, _CALLERS, _PAUSE_S = 2, 10, 32, 0.3
_SETTLED_S, _AGAIN_S = 60.0, 0.5


@dataclass(frozen=True)
class Scale:
    """
    The size of a measurement.

    Attributes:
        pilot: People of the pilot.
        layers: Layers of experiments with a lift.
        slices: Experiments of a layer.
        equal: Experiments with equal arms, and again with a history.
        planned: Users of an experiment; None for those that the plan names.
    """

    pilot: int = 2000
    layers: int = 7
    slices: int = 10
    equal: int = 1000
    planned: int | None = None


QUICK = Scale(pilot=40, layers=2, slices=1, equal=20, planned=2 * LEAST_USERS + 20)


@dataclass(frozen=True)
class Received:
    """
    People who came, and what the pipeline knows of them.

    Attributes:
        lists: Their lists in the log, those of a person together and oldest first.
        expected: The expected actions per list of each person, by the planted tastes.
        lost: Requests, events, lists and clicks that are missing.
    """

    lists: Sequence[Sequence[ExposureOutcome]]
    expected: Mapping[str, float]
    lost: int

    def values(self, *, history: bool = False) -> dict[str, UserValue]:
        """Return the value of each person in the order of the first lists; with *history*, that list comes before."""
        found = {
            own[0].user_id: value_of(
                None, own, kinds=_CLICKS, followed_us=DAY_US, since_us=own[0].time_us + 1 if history else 0
            )
            for own in self.lists
        }
        known = {user_id: value for user_id, value in found.items() if value}
        return dict(sorted(known.items(), key=lambda each: each[1].first_us))


@dataclass(frozen=True)
class Looks:
    """Whether, at any look, an interval lay above or below 0 or missed the truth, and whether the arms are unsound."""

    above: bool
    below: bool
    missed: bool
    unsound: bool


def measure(*, quick: bool) -> BenchReport:
    """Measure all stages on one pipeline."""
    scale = QUICK if quick else Scale()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train_demo(folder)
        # A long budget: on a busy machine, timeouts would show the popular list.
        settings = ["recommend:REQUEST_TIMEOUT_S=8"]
        with pipeline_running(folder, max_scale=1, exposures=True, settings=settings) as running:
            # The people of the pilot differ in their activity as those of the experiments do.
            alike = raise_activity(make_experiments(scale, planned=1), "pilot", least=scale.pilot)
            pilot = receive(running, make_newcomers(alike))
            usual = sample_of(pilot.values().values())
            planned = scale.planned or plan_users(usual.mean, usual.variance**0.5, lift=LIFT)
            experiments = make_experiments(scale, planned=planned)
            declare(kn_of("kn", None, folder), experiments, state_dir=folder)
            crowd = receive(running, make_newcomers(raise_activity(experiments, "user")))
    rows = [
        make_row("pilot", usual, [], lost=pilot.lost),
        look_at_lifts(crowd, experiments),
        *look_at_equals(crowd, planned=planned, number=scale.equal),
    ]
    return BenchReport("experiments", rows, make_targets(rows))


def make_newcomers(activity: Mapping[str, float]) -> People:
    """Return people with these ids and activities, each with a random taste for a category of the demo data."""
    demo = demo_people(bias=0.7, seed=0)
    names = sorted({*demo.favourites.values()})
    tastes = {each: names[int(point("taste", each) * len(names))] for each in activity}
    return replace(demo, favourites=tastes, activity=activity)


def make_experiments(scale: Scale, *, planned: int) -> list[Experiment]:
    """Return the experiments with a lift: each layer has equal slices."""
    share, now_us = 1 / scale.slices, time.time_ns() // 1000
    return [
        Experiment(
            f"e{layer}-{place}",
            _ARMS,
            layer=f"layer-{layer}",
            offset=place * share,
            share=share,
            users=planned,
            started_us=now_us,
        )
        for layer in range(scale.layers)
        for place in range(scale.slices)
    ]


def activity_of(treatment: Treatment) -> float:
    """Return the activity of a person: each raised arm adds LIFT, and the mean of all people is 1."""
    return math.prod((1 + LIFT * (arm == _RAISED)) / (1 + LIFT / 2) for arm in treatment.arm.split(SEPARATOR))


def raise_activity(experiments: Sequence[Experiment], prefix: str, *, least: int = 0) -> dict[str, float]:
    """Return the activity of each person: at least *least* people, and enough for all *experiments*."""
    assignment, found = Assignment(experiments), dict[str, float]()
    lacking = {each.name: each.users for each in experiments}
    for number in count():
        treatment = assignment.treat(user_id := f"{prefix}-{number}")
        if treatment is None or (number >= least and max(lacking.values()) <= 0):
            return found
        found[user_id] = activity_of(treatment)
        for name in treatment.experiment.split(SEPARATOR):
            lacking[name] -= 1
    return found


def receive(running: RunningPipeline, people: People) -> Received:
    """Let all people come, and wait until the log has what they saw and did."""
    found = asyncio.run(_receive(running, people))
    clicks = {exposure_id: look.clicks for exposure_id, look in found.looks.items()}
    deadline = time.monotonic() + _SETTLED_S
    while True:
        lists = [each for each in asyncio.run(_read(running)) if each[0].user_id in people.favourites]
        logged = {
            each.exposure_id: sum(len(item.outcomes) for item in each.items) for each in chain.from_iterable(lists)
        }
        lost = sum(logged.get(exposure_id) != number for exposure_id, number in clicks.items())
        if not lost or time.monotonic() > deadline:
            break
        time.sleep(_AGAIN_S)
    by_user = defaultdict(list)
    for look in found.looks.values():
        by_user[look.user_id].append(look.expected_clicks)
    expected = {user_id: statistics.fmean(own) for user_id, own in by_user.items()}
    return Received(lists, expected, lost + found.failed + found.unsent + found.unnamed)


async def _receive(running: RunningPipeline, people: People) -> Simulated:
    url = f"http://127.0.0.1:{running.port}"
    async with AsyncClient(url, events_url=running.broker_url, timeout_s=20, transport=HttptoolsTransport()) as client:
        return await receive_newcomers(people, client, lists=_LISTS, top_k=_TOP_K, callers=_CALLERS, pause_s=_PAUSE_S)


async def _read(running: RunningPipeline) -> list[list[ExposureOutcome]]:
    async with aclosing(open_exposures(running.store_url)) as log:
        found = [each async for each in log.scan()]
    return [list(own) for _, own in groupby(found, key=lambda each: each.user_id)]


def look_at_lifts(crowd: Received, experiments: Sequence[Experiment]) -> ReportRow:
    """Look at the experiments with a lift."""
    members = defaultdict(list)
    for own in crowd.lists:
        for name in (own[0].experiment or "").split(SEPARATOR):
            members[name].append(own)
    differences, levels = [], []
    for each in experiments:
        expected = defaultdict(list)
        for own in members[each.name]:
            expected[arm_of(each, own[0].user_id)].append(crowd.expected[own[0].user_id])
        control, raised = (statistics.fmean(expected[arm]) for arm in _ARMS)
        differences.append(raised - control)
        levels.append(control)
    truth = statistics.fmean(differences)
    looks, values = [], []
    for each in experiments:
        users, _ = gather_users(
            each.name,
            chain.from_iterable(members[each.name]),
            kinds=_CLICKS,
            followed_us=DAY_US,
            since_us=each.started_us,
        )
        ordered = sorted(users, key=lambda user: user.first_us)[: each.users]
        looks.append(look(each, ordered, truth=truth))
        values += ordered
    return make_row(
        f"lift of {truth / statistics.fmean(levels):.1%}",
        sample_of(values),
        looks,
        users=experiments[0].users,
        lost=crowd.lost,
    )


def look_at_equals(crowd: Received, *, planned: int, number: int) -> list[ReportRow]:
    """Look at *number* experiments whose arms do not differ, without and with a history."""
    found = {"equal arms": crowd.values(), "equal arms with a history": crowd.values(history=True)}
    looks: dict[str, list[Looks]] = {stage: [] for stage in found}
    for place in range(number):
        each = Experiment(f"equal-{place}", _ARMS, share=min(1.0, planned / len(crowd.lists)), users=planned)
        assignment = Assignment([each])
        arms = {own[0].user_id: treated.arm for own in crowd.lists if (treated := assignment.treat(own[0].user_id))}
        for stage, values in found.items():
            users = [replace(value, arm=arms[user_id]) for user_id, value in values.items() if user_id in arms]
            looks[stage].append(look(each, users, truth=0.0))
    return [make_row(stage, sample_of(values.values()), looks[stage], users=planned) for stage, values in found.items()]


def look(experiment: Experiment, users: Sequence[UserValue], *, truth: float) -> Looks:
    """Analyse *experiment* again and again while *users* arrive."""
    ends = [*range(2 * LEAST_USERS, len(users), max(1, experiment.users // 100)), len(users)]
    analyses = [conclude(experiment, users[:end]) for end in ends]
    lifts = [lift for each in analyses if (lift := each.arms[1].lift)]
    return Looks(
        any(each.low > 0 for each in lifts),
        any(each.high < 0 for each in lifts),
        any(not each.low <= truth <= each.high for each in lifts),
        not analyses[-1].is_sound,
    )


def sample_of(users: Iterable[UserValue]) -> Sample:
    """Return the sample of *users*, after the adjustment by their history."""
    values, before = zip(*((each.value, each.before) for each in users), strict=True)
    return Sample.of(adjust(np.array(values), np.array(before)))


def make_row(
    stage: str, values: Sample, looks: Sequence[Looks], *, users: int | None = None, lost: int = 0
) -> ReportRow:
    """Return the row of a stage: its users and their values, and shares of its experiments."""

    def share(name: str) -> float:
        return statistics.fmean(getattr(each, name) for each in looks) if looks else 0.0

    return {
        "stage": stage,
        "experiments": len(looks),
        "users": users or values.users,
        "actions per list": values.mean,
        "deviation": values.variance**0.5,
        **{name: share(name) for name in ("above", "below", "missed", "unsound")},
        "errors": lost,
    }


def make_targets(rows: Sequence[ReportRow]) -> list[BenchTarget]:
    """Return what the analysis promises."""
    _, lifts, *equals = rows
    power = float(lifts["above"])
    error = (power * (1 - power) / lifts["experiments"]) ** 0.5
    return [
        BenchTarget(f"experiments that find the lift, +- {error:.3f}", power, ">=", POWER),
        BenchTarget("experiments with the lift whose intervals cover it", 1 - float(lifts["missed"]), ">=", 1 - ALPHA),
        *(BenchTarget(f"false alarms, {each['stage']}", float(each["missed"]), "<=", ALPHA) for each in equals),
        BenchTarget("lost requests, lists and clicks", sum(row["errors"] for row in rows), "<=", 0),
    ]
