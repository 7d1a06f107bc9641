"""The changes that are tried on users: experiments, the shadow and rollouts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kndashboard.experiments import experiments
from kndashboard.rollouts import rollouts
from kndashboard.shadow import shadow
from kndashboard.snapshots import Snapshot


def changes(services: Sequence[Mapping[str, Any]], reports: Path | None, now: Snapshot) -> dict[str, Any]:
    """
    Return the experiments, the shadow and the rollouts, with the problem of a part that cannot be read.

    Args:
        services: The Services as Kubernetes objects.
        reports: Directory of the reports on experiments and rollouts; None for none.
        now: The platform.
    """
    try:
        tried: dict[str, Any] = {"experiments": experiments(services, reports, now)}
    except (ValueError, OSError) as error:
        tried = {"experiments": [], "problem": f"the experiments cannot be read: {error}"}
    ran = rollouts(reports / "rollouts") if reports else {"running": [], "ended": []}
    return {**tried, "shadow": shadow(services, now), "rollouts": ran}
