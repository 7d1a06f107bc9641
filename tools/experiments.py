"""
`./run.sh experiments report`: figures of what was shown and what users did with it, by model and arm, and the analysis of
the experiments that were started. `./run.sh experiments plan`: the users that an experiment needs.
"""

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from offline.experiments.analysis import analyse, measure_users
from offline.experiments.health import check_health
from offline.experiments.sample_size import plan_users
from offline.experiments.sequences import LEAST_USERS
from offline.state import StateDirectory, StateError
from recrank.artefact import MANIFEST, ArtefactError, read_artefact
from recstore.exposures.figures import ArtefactFacts, Figures, Key, Tally, compute_figures
from recstore.exposures.records import ExposureOutcome
from recstore.exposures.urls import open_exposures
from recstore.port import StoreError
from recstore.urls import open_store
from recsys.declaration.reader import default_declaration
from recsys.declaration.types import EventKind
from recsys.experiments.ledger import ExperimentFigures, keep_figures, read_ledger
from tools import running_experiments
from tools.deployment.kn import Kn, KnError, kn_of
from tools.experiment_figures import describe, summarise
from tools.guard import guard
from tools.running_experiments import split_arm

_NONE, _INTERRUPTED = "-", 130
_TITLES = ("arm", "model", "exposures", "users", "clicked", "converted", "items", "coverage", "new items", "model age")


def run(
    *,
    action: str,
    name: str | None,
    window: float,
    follow: float,
    every: float | None,
    store: str | None,
    as_json: bool,
    state_dir: Path,
    namespace: str | None,
    kn: str,
    arm: Sequence[str] | None,
    rate: float | None,
    deviation: float | None,
    lift: float,
    **options: Any,
) -> int:
    """
    Report on experiments, stop arms that are worse, plan, or change what runs (`running_experiments`).

    A report and a guard keep the figures of the experiments in the state directory for the live page. With *every*, they
    repeat until Ctrl-C, also after a failure.

    Returns:
        0; 1 if the store cannot be read or holds too few exposures, or the pipeline cannot be changed; 130 after Ctrl-C.
    """
    if action == "plan":
        return _plan(
            arm or (),
            rate,
            deviation,
            lift=lift,
            window_s=window,
            follow_s=follow,
            store=store,
            state=StateDirectory(state_dir),
        )
    if action not in {"report", "guard"}:
        return running_experiments.run(
            action=action, name=name, arm=arm, namespace=namespace, kn=kn, state_dir=state_dir, **options
        )
    state, client = StateDirectory(state_dir), kn_of(kn, namespace, state_dir)
    look = partial(_look, state, client, action, name=name, window=window, follow=follow, store=store, as_json=as_json)
    if every is None:
        return look()
    try:
        while True:
            began = time.monotonic()
            look()
            sys.stdout.flush()
            time.sleep(max(0.0, every - (time.monotonic() - began)))
    except KeyboardInterrupt:
        return _INTERRUPTED


def _plan(
    arms: Sequence[str],
    rate: float | None,
    deviation: float | None,
    *,
    lift: float,
    window_s: float,
    follow_s: float,
    store: str | None,
    state: StateDirectory,
) -> int:
    """Print the users that an experiment needs. Without a *rate*, the users of the log tell mean and deviation."""
    try:
        shares = [split_arm(text)[0].share for text in arms] or [0.5, 0.5]
        if rate is None:
            url = store or state.store_url(state.require_current())
            read = asyncio.run(_read(url, window_s=window_s, keeps=True))
            usual = measure_users(read.exposures, kinds=read.clicks, followed_us=round(follow_s * 1e6))
            if usual.users < LEAST_USERS or not usual.mean:
                raise ValueError(
                    f"the log has {usual.users} users whose time is over; a plan needs {LEAST_USERS} and an action: "
                    "wait, lower --follow, or pass --rate"
                )
            rate, deviation = usual.mean, usual.variance**0.5
            print(f"{usual.users} users of the log: {rate:.4f} actions per list, standard deviation {deviation:.4f}")
        users = plan_users(rate, rate**0.5 if deviation is None else deviation, lift=lift, shares=shares)
    except (StateError, StoreError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{users} users in all arms find a change of {lift:.1%} with a probability of at least 80 %")
    return 0


def _look(
    state: StateDirectory,
    kn: Kn,
    action: str,
    *,
    name: str | None,
    window: float,
    follow: float,
    store: str | None,
    as_json: bool,
) -> int:
    """Report, or stop arms that are worse, once; return the exit status."""
    state_dir = state.folder
    try:
        url = store or state.store_url(state.require_current())
        known = [each for each in read_ledger(state_dir) if name in {None, each.name}]
        read = asyncio.run(_read(url, window_s=window, keeps=bool(known)))
        followed_us, now_us = round(follow * 1e6), time.time_ns() // 1000
        analyses = [analyse(each, read.exposures, kinds=read.clicks, followed_us=followed_us) for each in known]
        healths = {each.name: check_health(each, read.exposures) for each in known}
        found = [summarise(each, healths[each.experiment], followed_us=followed_us, at_us=now_us) for each in analyses]
        if action == "guard":
            kinds = read.clicks, read.purchases
            guard(kn, read.exposures, kinds=kinds, followed_us=followed_us, state_dir=state_dir)
    except (StateError, StoreError, KnError, ValueError, msgspec.DecodeError) as error:
        print(error, file=sys.stderr)
        return 1
    _keep(found, state_dir)
    if action == "guard":
        return 0
    figures = compute_figures(read.tallies, lambda version: facts_of(state, version))
    if not figures and not as_json:
        print(f"{action}: the store holds no exposures; run ./run.sh up --exposures and ask it", file=sys.stderr)
        return 1
    if as_json:
        print(msgspec.json.encode({"figures": figures, "analyses": analyses, "health": healths}).decode())
    else:
        print(*lines(figures), sep="\n")
        for each in found:
            print("", *describe(each), sep="\n")
    return 0


def _keep(found: Sequence[ExperimentFigures], state_dir: Path) -> None:
    try:
        keep_figures(found, state_dir=state_dir)
    except OSError as error:
        print(f"the live page keeps its former figures: {error}", file=sys.stderr)


@dataclass(frozen=True)
class _Read:
    """The tallies of a log, the log itself if experiments were started, and the kinds that count."""

    tallies: dict[Key, Tally]
    exposures: list[ExposureOutcome]
    clicks: frozenset[str]
    purchases: frozenset[str]


async def _read(url: str, *, window_s: float, keeps: bool) -> _Read:
    password = os.environ.get("FEATURE_STORE_PASSWORD")
    async with aclosing(open_store(url, password=password)) as store:
        declared = await store.declaration() or default_declaration()
    clicks, purchases = kinds_of(declared.events)
    tallies: dict[Key, Tally] = {}
    exposures: list[ExposureOutcome] = []
    async with aclosing(open_exposures(url, password=password)) as log:
        async for each in log.scan(window_s=window_s):
            key = (each.model, each.version, each.experiment, each.arm)
            tally = tallies.setdefault(key, Tally(clicks=clicks, purchases=purchases))
            tally.add(each)
            exposures += [each] if keeps else []
    return _Read(tallies, exposures, clicks, purchases)


def kinds_of(declared: Mapping[str, EventKind]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the declared kinds that count as clicks, and those that count as purchases."""
    clicks = frozenset(name for name, kind in declared.items() if kind.weight > 0)
    return clicks, frozenset(name for name, kind in declared.items() if kind.counter == "purchases")


def facts_of(state: StateDirectory, version: str | None) -> ArtefactFacts | None:
    """Return the facts of the artefact with *version*; None if the state directory does not hold it."""
    folder = state.find_model(version or "")
    if folder is None:
        return None
    try:
        artefact = read_artefact(folder)
    except ArtefactError:
        # An earlier release wrote it.
        return None
    popularity = artefact.arrays["item_popularity"]
    learned = frozenset(item.item_id for item, share in zip(artefact.items, popularity, strict=True) if share > 0)
    written_s = (folder / MANIFEST).stat().st_mtime
    return ArtefactFacts(len(artefact.items), learned, round(written_s * 1e6))


def lines(figures: Sequence[Figures]) -> list[str]:
    """Return the figures as the lines of a table."""
    rows = [_TITLES, *map(_row, figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(each: Figures) -> Sequence[str]:
    return (
        f"{each.experiment}/{each.arm}" if each.experiment else _NONE,
        f"{each.model} {each.version}" if each.version else each.model,
        str(each.exposures),
        str(each.users),
        f"{each.click_through:.2%}",
        f"{each.conversion:.2%}",
        str(each.items),
        _NONE if each.coverage is None else f"{each.coverage:.1%}",
        _NONE if each.new_items is None else f"{each.new_items:.1%}",
        _NONE if each.staleness_s is None else f"{each.staleness_s / 3600:.1f} h",
    )
