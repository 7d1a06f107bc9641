"""An experiment with figures, and a rollout, for tests of the page."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from recsys.experiments.declaration import Arm, Experiment
from recsys.experiments.ledger import ArmFigures, ExperimentFigures, keep, keep_figures
from tools.rollout.comparison import RolloutTrial, TrialAnswer, compare
from tools.rollout.conductor import RolloutOutcome
from tools.rollout.decisions import CandidateLimits
from tools.rollout.journal import journal_of
from tools.rollout.report import write_report

RED_URL = "http://red-rank-items.default.example"
RED = Experiment(
    "colours", (Arm("control", 0.5), Arm("red", 0.5, url=RED_URL, diversity=0.3)), users=4000, started_us=1_000
)


def figures_of(name: str, *, at_us: int) -> ExperimentFigures:
    control = ArmFigures("control", 600, 0.4, None, None, None, "", 700, 0.0, 0.08)
    red = ArmFigures("red", 600, 0.2, -0.5, -0.6, -0.4, "worse", 700, 0.25, 0.24, warning="its p99 is 240 ms")
    return ExperimentFigures(name, at_us, 1, (control, red), 5, 0, 1.0, 0, sound=True)


def outcome(*, promoted: bool) -> RolloutOutcome:
    answer = TrialAnswer(5.0, ranking=("a", "b"), revision="new")
    step = compare([RolloutTrial(answer, answer, answer)], share=5, candidate="new")
    return RolloutOutcome(
        "rank-items", "old", "new", promoted=promoted, reasons=() if promoted else ["slow"], seen=[step]
    )


def progress() -> dict[str, Any]:
    """Return the progress of a rollout in its second step."""
    return {
        "service": "rank-items", "current": "old", "candidate": "new", "steps": [0, 5, 100], "share": 5, "since": 7.5,
        "seen": [asdict(step) for step in outcome(promoted=True).seen],
    }  # fmt: skip


def write_all(state_dir: Path) -> None:
    """Write an experiment that has ended, a rollout that was rolled back, and one of this process that runs."""
    keep([RED], state_dir=state_dir)
    keep_figures([figures_of(RED.name, at_us=2_000)], state_dir=state_dir)
    write_report(state_dir / "rollouts", outcome(promoted=False), CandidateLimits())
    journal_of("rank-items", state_dir / "rollouts").note(progress())
