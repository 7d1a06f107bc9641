"""
`./run.sh rollout SERVICE`: update a Service under watch.

The new revision first gets copies of requests only, then traffic in steps. Each step compares it with the present
revision. If it breaks a limit, the present revision gets all traffic back. A report holds the figures and the reason.
With --namespace the Service is on the cluster that kn is set up for, without it on the platform of this machine.
"""

import argparse
import shlex
import signal
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.kn import Kn, KnError
from tools.rollout.conductor import Conductor, RolloutPace
from tools.rollout.decisions import CandidateLimits, Rollout
from tools.rollout.journal import Journal
from tools.rollout.report import write_report
from tools.rollout.trials import TrialClient, make_bodies

# Flags that are passed to `kn service update` unchanged.
_CHANGES = ("--image", "--env", "--scale", "--scale-init", "--scale-target", "--concurrency-limit", "--annotation-revision",
            "--request", "--limit", "--wait-timeout")  # fmt: skip
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INTERRUPTED = 130


def main(words: Sequence[str] | None = None) -> int:
    """
    Roll out.

    Returns:
        0 for promoted, 1 for rolled back or nothing begun, 2 for wrong arguments, 130 for interrupted.
    """
    options = parser().parse_args(words)
    limits = CandidateLimits(
        max_error_rate=options.max_error_rate,
        max_p99_ms=options.max_p99_ms,
        max_slowdown=options.max_slowdown,
        min_overlap=options.min_overlap,
        min_correlation=options.min_correlation,
    )
    try:
        rollout = Rollout(options.steps, limits)
    except ValueError as error:
        parser().error(f"--steps: {error}")
    try:
        with _interruptible():
            return _roll_out(options, rollout)
    except (KnError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _roll_out(options: argparse.Namespace, rollout: Rollout) -> int:
    changes = [word for flag in _CHANGES for value in _values(options, flag) for word in (flag, value)]
    folder = options.report or options.state_dir / "rollouts"
    kn, make_client = Kn(_command(options), options.namespace), _clients(options)
    conductor = Conductor(
        options.service,
        kn,
        Journal(folder / f".{options.service}.unfinished.json"),
        make_client,
        _bodies(options, kn, make_client),
        RolloutPace(options.requests, options.step_duration, options.callers),
        tell=_tell,
    )
    outcome = conductor.run(rollout, changes)
    path = write_report(folder, outcome, rollout.limits)
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


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb's flags."""
    parser = argparse.ArgumentParser(prog="./run.sh rollout", description=__doc__)
    parser.add_argument("service")
    change = parser.add_argument_group("the candidate, with the flags of kn service update")
    for flag in _CHANGES:
        change.add_argument(flag, action="append", default=[], metavar="…")
    limit = parser.add_argument_group("limits")
    limit.add_argument("--max-error-rate", type=percentage, default=0.001, metavar="0.1%")
    limit.add_argument("--max-p99-ms", type=float, metavar="MS")
    limit.add_argument("--max-slowdown", type=float, default=1.5, help="median over the present one's (%(default)s)")
    limit.add_argument("--min-overlap", type=float, metavar="0..1", help="with the present top-k, on average")
    limit.add_argument("--min-correlation", type=float, metavar="-1..1", help="rank correlation, on average")
    pace = parser.add_argument_group("pace")
    pace.add_argument("--steps", type=steps, default=[5, 25, 100], metavar="5,25,100", help="percent of the traffic")
    pace.add_argument("--step-duration", type=float, default=10.0, metavar="SECONDS", help="at least (%(default)s)")
    pace.add_argument("--requests", type=int, default=200, metavar="N", help="to each, at each step (%(default)s)")
    pace.add_argument("--callers", type=int, default=2, metavar="N", help="requests at a time (%(default)s)")
    what = parser.add_argument_group("what is asked")
    what.add_argument("--body-file", type=Path, metavar="FILE", help="requests, a line of JSON each")
    what.add_argument("--users", type=Path, metavar="FILE", help="users to ask for, one a line; the demo's without")
    what.add_argument("--top-k", type=int, default=10, help="how many items are compared (%(default)s)")
    where = parser.add_argument_group("where")
    where.add_argument("--namespace", help="on the cluster; without it the platform of --state-dir")
    where.add_argument("--kn", default="kn", help="the command (%(default)s)")
    where.add_argument("--gateway", metavar="URL", help="connect here for every Service: a port-forward of the gateway")
    where.add_argument("--token-file", type=Path, help="with a bearer token for the Service")
    where.add_argument("--ca-file", type=Path, help="whose HTTPS certificates are believed")
    where.add_argument("--state-dir", type=Path, default=Path(".recsys"))
    where.add_argument("--report", type=Path, metavar="DIR", help="for reports; below --state-dir without")
    return parser


def percentage(text: str) -> float:
    """Return `0.1%` or `0.001` as a share."""
    share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    if not 0 <= share <= 1:
        raise ValueError(f"{text} is not a share between 0 and 1")
    return share


def steps(text: str) -> list[int]:
    """Return `5,25,100` as numbers."""
    return [int(part.removesuffix("%")) for part in text.split(",")]


def _values(options: argparse.Namespace, flag: str) -> list[str]:
    values: list[str] = getattr(options, flag[2:].replace("-", "_"))
    return values


def _command(options: argparse.Namespace) -> list[str]:
    if options.namespace:
        return shlex.split(options.kn)
    # `kn` of localkn takes the state directory among its own flags.
    return [sys.executable, "-m", "localkn", "kn", "--state-dir", str(options.state_dir / "platform")]


def _clients(options: argparse.Namespace) -> Callable[[str], TrialClient]:
    token = options.token_file.read_text().split()[0] if options.token_file else None
    trust = ssl.create_default_context(cafile=options.ca_file) if options.ca_file else None
    return lambda url: TrialClient(url, gateway=options.gateway, token=token, trust=trust)


def _bodies(options: argparse.Namespace, kn: Kn, make_client: Callable[[str], TrialClient]) -> list[bytes]:
    """Return the requests to try with."""
    if options.body_file:
        found = [line.encode() for line in options.body_file.read_text().splitlines() if line.strip()]
    else:
        users = options.users.read_text().split() if options.users else [f"user_{n}" for n in range(1, 201)]
        wanted = options.service.startswith("rank-items")
        features = make_client(kn.service("extract-features")["status"]["url"]) if wanted else None
        found = list(make_bodies(options.service, users, top_k=options.top_k, features=features))
        if features:
            features.close()
    if not found:
        raise ValueError("no requests to send; --body-file or --users is empty")
    return found


if __name__ == "__main__":
    sys.exit(main())
