"""
`python -m tools.bench.switched_exposures --source FILE`: serve recommend, whose exposures can be switched while it runs.

On SIGUSR1 the process reads the name of a state from the file at the path in SWITCH. Without exposures, no answer is noted,
as without a sink. Without an experiment, no user is in an arm.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from chassis.server.__main__ import main as serve
from functions.recommend.arms import Arms
from functions.recommend.outbox import Outbox

OFF, EXPOSURES, EXPERIMENT = STATES = ("off", "exposures", "exposures and an experiment")


def _refuse(*_: Any, **__: Any) -> str:
    return ""


def _leave(*_: Any, **__: Any) -> None:
    return None


_note, _treat = Outbox.note, Arms.treat


def turn(state: str) -> None:
    """Enter *state*; it applies from the next request on."""
    setattr(Outbox, "note", _refuse if state == OFF else _note)  # noqa: B010 - a type checker refuses the assignment
    setattr(Arms, "treat", _treat if state == EXPERIMENT else _leave)  # noqa: B010


def main() -> int:
    """Serve, and change the state on SIGUSR1."""
    state_file = Path(os.environ["SWITCH"])
    signal.signal(signal.SIGUSR1, lambda *_: turn(state_file.read_text()))
    turn(state_file.read_text())
    return serve()


if __name__ == "__main__":
    sys.exit(main())
