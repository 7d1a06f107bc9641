"""
The experiments: what the setting EXPERIMENTS declares, and the figures of the last report.

An analysis reads the log of exposures with numpy, which exceeds what the page may cost. `./run.sh experiments report` and
`guard` keep their figures in a file instead, and the page shows the figures with their time.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from kndashboard.settings import first_setting, revisions_by_url
from kndashboard.snapshots import Snapshot
from recsys import metrics
from recsys.experiments.declaration import Experiment, read_experiments
from recsys.experiments.ledger import ExperimentFigures, read_figures, read_ledger

_ENDED_SHOWN = 5


def experiments(services: Sequence[Mapping[str, Any]], state_dir: Path | None, now: Snapshot) -> list[dict[str, Any]]:
    """
    Return the running experiments and the newest ended ones, each with its arms and its figures.

    Args:
        services: The Services as Kubernetes objects.
        state_dir: The directory of the ledger; None for running experiments without figures.
        now: The platform.

    Raises:
        ValueError: The setting or the ledger cannot be read.
    """
    setting = first_setting(services, "EXPERIMENTS")
    running = read_experiments(setting) if setting else ()
    names = {each.name for each in running}
    known = read_ledger(state_dir) if state_dir else []
    ended = sorted((each for each in known if each.name not in names), key=lambda each: each.started_us)
    figures = {each.name: each for each in read_figures(state_dir)} if state_dir else {}
    calls, places = arm_calls(now), revisions_by_url(services)
    return [
        _shown(each, figures.get(each.name), calls, places, runs=each.name in names)
        for each in (*running, *reversed(ended[-_ENDED_SHOWN:]))
    ]


def _shown(
    experiment: Experiment,
    figures: ExperimentFigures | None,
    calls: Mapping[tuple[str, str], Mapping[str, float]],
    places: Mapping[str, str],
    *,
    runs: bool,
) -> dict[str, Any]:
    # An earlier experiment may have had the same name.
    found = figures if figures and figures.at_us >= experiment.started_us else None
    by_arm = {each.name: msgspec.to_builtins(each) for each in found.arms} if found else {}
    about = {key: value for key, value in msgspec.to_builtins(found).items() if key != "arms"} if found else None
    return {
        "name": experiment.name,
        "running": runs,
        "layer": experiment.in_layer,
        "share": experiment.share,
        "users": experiment.users,
        "started_us": experiment.started_us,
        "figures": about,
        "arms": [
            {
                "name": arm.name,
                "share": arm.share,
                "stopped": arm.stopped,
                "settings": {
                    **({"revision": places.get(arm.url, arm.url)} if arm.url else {}),
                    **({"diversity": arm.diversity} if arm.diversity is not None else {}),
                    **({"exploration": arm.exploration.share} if arm.exploration is not None else {}),
                },
                "calls": calls.get((experiment.name, arm.name)) if runs else None,
                "figures": by_arm.get(arm.name),
            }
            for arm in experiment.arms
        ],
    }


def arm_calls(now: Snapshot) -> dict[tuple[str, str], dict[str, float]]:
    """Return the calls of arms to their own rank_items by outcome, since the instances started, by experiment and arm."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for labels, value in _samples(now, metrics.ARM_CALLS.name):
        outcomes = found.setdefault((labels["experiment"], labels["arm"]), {})
        outcomes[labels["outcome"]] = outcomes.get(labels["outcome"], 0.0) + value
    return found


def _samples(now: Snapshot, name: str) -> Iterable[tuple[dict[str, str], float]]:
    for exposed in now.scraped.values():
        for labels, value in exposed.samples.get(name, {}).items():
            yield dict(labels), value
