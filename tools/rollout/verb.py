"""
`./run.sh rollout SERVICE`: update a Service in steps, and roll back if the new revision breaks a limit.

The new revision first gets copies of requests only, then traffic in steps. Each step compares it with the current
revision. If it breaks a limit, the current revision gets all traffic back. A report holds the figures and the reason.
"""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from loadtests.population import known_users, read_lines
from tools.deployment.credentials import read_authorities, read_token
from tools.deployment.kn import Kn, KnError, kn_of, url_of
from tools.rollout.conductor import Conductor, RolloutOutcome, RolloutPace
from tools.rollout.decisions import CandidateLimits, Rollout
from tools.rollout.journal import journal_of
from tools.rollout.report import write_report
from tools.rollout.trials import MakeClient, TrialClient, make_bodies

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INTERRUPTED = 130


def roll_out(
    *,
    service: str,
    max_error_rate: float,
    max_p99_ms: float | None = None,
    max_slowdown: float,
    min_overlap: float | None = None,
    min_correlation: float | None = None,
    steps: str,
    step_duration: float,
    requests: int,
    callers: int,
    body_file: Path | None = None,
    users: Path | None = None,
    top_k: int,
    namespace: str | None = None,
    kn: str,
    gateway: str | None = None,
    token_file: Path | None = None,
    ca_file: Path | None = None,
    state_dir: Path,
    report: Path | None = None,
    **changes: Sequence[str] | None,
) -> int:
    """
    Roll out; *changes* are flags of `kn service update`, and pass unchanged.

    Returns:
        0 for promoted, 1 for rolled back or nothing begun, 2 for wrong arguments, 130 for interrupted.
    """
    limits = CandidateLimits(
        max_error_rate=max_error_rate,
        max_p99_ms=max_p99_ms,
        max_slowdown=max_slowdown,
        min_overlap=min_overlap,
        min_correlation=min_correlation,
    )
    folder = report or state_dir / "rollouts"
    try:
        rollout = Rollout([int(step) for step in steps.split(",")], limits)
    except ValueError as error:
        print(f"--steps: {error}", file=sys.stderr)
        return 2
    try:
        with _interruptible():
            make_client = _clients(gateway=gateway, token_file=token_file, ca_file=ca_file)
            client = kn_of(kn, namespace, state_dir)
            conductor = Conductor(
                service,
                client,
                journal_of(service, folder),
                make_client,
                _bodies(service, client, make_client, body_file=body_file, users=users, top_k=top_k),
                RolloutPace(requests, step_duration, callers),
                tell=_tell,
            )
            given = ((f"--{name.replace('_', '-')}", value) for name in changes for value in changes[name] or ())
            words = [word for pair in given for word in pair]
            return _report(conductor.run(rollout, words), folder, rollout.limits)
    except (KnError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _report(outcome: RolloutOutcome, folder: Path, limits: CandidateLimits) -> int:
    path = write_report(folder, outcome, limits)
    _tell(f"{'promoted' if outcome.promoted else 'rolled back'}; report: {path}")
    if outcome.interrupted:
        return _INTERRUPTED
    return 0 if outcome.promoted else 1


@contextmanager
def _interruptible() -> Iterator[None]:
    """
    Turn the first SIGINT, SIGTERM or SIGHUP into KeyboardInterrupt, and ignore those that follow.

    The rollout then restores the Service, and nothing but SIGKILL keeps it from that.
    """

    def interrupt(*_: object) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    former = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _tell(line: str) -> None:
    with suppress(OSError):  # the output is closed; the rollout goes on
        print(line, flush=True)


def _clients(*, gateway: str | None, token_file: Path | None, ca_file: Path | None) -> MakeClient:
    token, trust = read_token(token_file), read_authorities(ca_file)
    return lambda service, tag: TrialClient(
        url_of(service, tag, gateway=gateway), gateway=gateway, token=token, trust=trust
    )


def _bodies(
    service: str,
    kn: Kn,
    make_client: MakeClient,
    *,
    body_file: Path | None,
    users: Path | None,
    top_k: int,
) -> list[bytes]:
    """Return the requests to try with."""
    if body_file:
        found = [line.encode() for line in read_lines(body_file)]
    else:
        names = read_lines(users) if users else known_users(None, most=200)
        wanted = service.startswith("rank-items")
        features = make_client(kn.service("extract-features"), None) if wanted else None
        found = list(make_bodies(service, names, top_k=top_k, features=features))
        if features:
            features.close()
    if not found:
        raise ValueError("no requests to send; --body-file or --users is empty")
    return found
