"""The verbs of `./run.sh` for a local pipeline that runs: down, status, logs, kn, events."""

from collections.abc import Sequence
from pathlib import Path

from localkn.__main__ import main as run_localkn


def down(*, state_dir: Path) -> int:
    """Stop the platform."""
    return _localkn(state_dir, "down")


def status(*, watch: bool | None = None, as_json: bool = False, state_dir: Path) -> int:
    """Show the platform."""
    how = {None: [], True: ["--watch"], False: ["--once"]}[watch]
    return _localkn(state_dir, "status", *how, *["--json"] * as_json)


def logs(*, name: str = "", follow: bool = False, state_dir: Path) -> int:
    """Show logs."""
    return _localkn(state_dir, "logs", *["--follow"] * follow, *[name] * bool(name))


def kn(*, words: Sequence[str], state_dir: Path) -> int:
    """Run a command of kn."""
    return run_localkn(["kn", "--state-dir", str(state_dir / "platform"), *words])


def events(
    *,
    action: str | None = None,
    ids: Sequence[str] | None = None,
    trigger: str | None = None,
    source: str | None = None,
    all_: bool = False,
    as_json: bool = False,
    state_dir: Path,
) -> int:
    """Show the broker's queues, or redrive dead letters."""
    words = [*["--json"] * as_json, *["--all"] * all_, *(ids or ())]
    words += ["--trigger", trigger] if trigger else []
    words += ["--source", source] if source else []
    where = ["events", "--state-dir", str(state_dir / "platform")]
    return run_localkn([*where, action, *words] if action else [*where, *words])


def _localkn(state_dir: Path, verb: str, *words: str) -> int:
    return run_localkn([verb, "--state-dir", str(state_dir / "platform"), *words])
