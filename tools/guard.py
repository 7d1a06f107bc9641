"""`./run.sh experiments guard`: stop the arms of running experiments that harm users."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from offline.experiments.analysis import analyse
from offline.experiments.health import check_health, reasons
from offline.experiments.sequences import ALPHA
from recstore.exposures.records import ExposureOutcome
from recsys.experiments.declaration import Experiment
from tools.deployment.kn import Kn
from tools.running_experiments import declare, read_running, stop


def guard(
    kn: Kn,
    exposures: Sequence[ExposureOutcome],
    *,
    kinds: Sequence[frozenset[str]],
    followed_us: int,
    state_dir: Path,
) -> None:
    """
    Stop the arms that fail more often, are slower, or have fewer actions of any of *kinds* than the control.

    Raises:
        KnError: kn refused.
    """
    found: dict[str, list[str]] = {}
    for each in read_running(kn):
        # Two guardrails look at the answers, the others at the actions. Together they err like a single analysis.
        alpha = ALPHA / (len(kinds) + 2)
        harmful = find_unhealthy(each, exposures, alpha=alpha)
        worse = find_worse(each, exposures, kinds=kinds, followed_us=followed_us, alpha=alpha)
        if worse is None:
            print(f"{each.name}: users are not in the arms as declared; their actions stop no arm", file=sys.stderr)
        harmful = {**dict.fromkeys(worse or (), f"fewer actions than {each.arms[0].name}"), **harmful}
        for arm, why in harmful.items():
            print(f"{each.name}: stopping {arm}: {why}")
        found |= {each.name: list(harmful)} if harmful else {}
    # The analysis of a long log takes minutes, in which another command may start or stop experiments.
    running: Sequence[Experiment] = read_running(kn) if found else ()
    if still := [each.name for each in running if each.name in found]:
        for name in still:
            running = stop(running, name, found[name])
        declare(kn, running, state_dir=state_dir)


def find_unhealthy(
    experiment: Experiment, exposures: Sequence[ExposureOutcome], *, alpha: float = ALPHA
) -> Mapping[str, str]:
    """
    Return why arms must stop whose answers fail more often or are slower than those of the control, by arm.

    Users that are not in the arms as declared are no obstacle: an arm that fails loses lists.
    """
    active = _active(experiment)
    found = reasons(check_health(experiment, exposures, alpha=alpha))
    return {arm: why for arm, why in found.items() if arm in active}


def find_worse(
    experiment: Experiment,
    exposures: Sequence[ExposureOutcome],
    *,
    kinds: Sequence[frozenset[str]],
    followed_us: int,
    alpha: float = ALPHA,
) -> list[str] | None:
    """
    Return the arms that still change something and have fewer actions than the control of any of *kinds*.

    None if users are not in the arms as declared. *alpha* is the probability of a false alarm of each kind.
    """
    active = _active(experiment)
    worse: dict[str, None] = {}
    for each in kinds:
        found = analyse(experiment, exposures, kinds=each, followed_us=followed_us, alpha=alpha)
        if not found.is_sound:
            return None
        worse.update(dict.fromkeys(arm.name for arm in found.arms if arm.is_worse and arm.name in active))
    return [*worse]


def _active(experiment: Experiment) -> set[str]:
    return {arm.name for arm in experiment.arms if arm.changes() and not arm.stopped}
