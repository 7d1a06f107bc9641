"""
The experiments that were started from a state directory, and their latest figures, as two files of JSON.

`experiments.json` keeps the last declaration of each experiment, so that a report can analyse experiments that have ended.
`experiments-figures.json` keeps what the last report found, for readers that cannot wait for an analysis.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from recsys.experiments.declaration import Experiment

DECLARATIONS, FIGURES = "experiments.json", "experiments-figures.json"

Verdict = Literal["better", "worse", "undecided", ""]


class ArmFigures(Struct, frozen=True):
    """
    An arm, compared with the control.

    Attributes:
        name: The arm.
        users: Users whose time is over.
        mean: Actions per list; None without users.
        change: Difference from the control as a share of the control's mean; None for the control, too few users, or if
            the mean of the control may be 0.
        low: Lower end of the interval of *change*, which holds at all looks.
        high: Its upper end.
        verdict: Position of the interval of the difference; "" for the control and too few users.
        lists: Number of lists, those of waiting users included.
        failed: Share of the lists that failed.
        p99_s: 99th percentile of the time that a list took, seconds; None if no event tells the time.
        warning: Why the arm must stop; "" if its answers are as good as the control's.
    """

    name: str
    users: int
    mean: float | None
    change: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    lists: int
    failed: float
    p99_s: float | None
    warning: str = ""


class ExperimentFigures(Struct, frozen=True):
    """
    The figures of an experiment at the time of a report.

    Attributes:
        name: The experiment.
        at_us: Time of the report, microseconds since the epoch.
        followed_us: Time after a user's first list in which actions count.
        arms: The arms, the control first.
        waiting: Users whose time is not over.
        adjusted: Users with a history before the experiment.
        mismatch: Bound on the probability of these numbers of users if the arms had their shares.
        switched: Users with lists of two arms.
        sound: Whether users are in the arms as declared; if not, no difference of the arms means anything.
    """

    name: str
    at_us: int
    followed_us: int
    arms: tuple[ArmFigures, ...]
    waiting: int
    adjusted: int
    mismatch: float
    switched: int
    sound: bool


def read_ledger(state_dir: Path) -> list[Experiment]:
    """
    Return the last declaration of each experiment that was started from *state_dir*.

    Raises:
        msgspec.DecodeError: the file is damaged.
    """
    try:
        return msgspec.json.decode((state_dir / DECLARATIONS).read_bytes(), type=list[Experiment])
    except FileNotFoundError:
        return []


def keep(experiments: Iterable[Experiment], *, state_dir: Path) -> None:
    """Write *experiments* into the file of all experiments that ever started."""
    known = {each.name: each for each in read_ledger(state_dir)} | {each.name: each for each in experiments}
    _replace(state_dir / DECLARATIONS, [*known.values()])


def read_figures(state_dir: Path) -> list[ExperimentFigures]:
    """Return the latest figures of each experiment; none if the file is missing or damaged, since a report renews it."""
    try:
        return msgspec.json.decode((state_dir / FIGURES).read_bytes(), type=list[ExperimentFigures])
    except (OSError, msgspec.DecodeError):
        return []


def keep_figures(figures: Iterable[ExperimentFigures], *, state_dir: Path) -> None:
    """Write *figures*, if any, into the file, and keep those of the other experiments."""
    if fresh := {each.name: each for each in figures}:
        known = {each.name: each for each in read_figures(state_dir)}
        _replace(state_dir / FIGURES, [*(known | fresh).values()])


def _replace(path: Path, content: object) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.draft")
    draft.write_bytes(msgspec.json.encode(content))
    draft.replace(path)
