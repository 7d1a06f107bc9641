"""`python -m localkn VERB`: see `--help`."""

import argparse
import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from kubeyaml.errors import KubeyamlError
from localkn import control, events, kn, logs
from localkn.errors import LocalknError, PlatformError, UsageError
from localkn.state import PlatformDirectory

_READY_FD = "LOCALKN_READY_FD"
"""Variable that holds the descriptor on which a detached platform announces to its parent that it is ready."""


def main(argv: Sequence[str] | None = None, *, announce: Callable[[str], None] = print) -> int:
    """
    Run one verb; a failure is one message on stderr and exit status 1, wrong arguments are exit status 2.

    Args:
        argv: The arguments; those of this process by default.
        announce: Called by `up` with a text for the user when every Service is ready.
    """
    words = sys.argv[1:] if argv is None else argv
    arguments = _parser().parse_args(words)
    arguments.words, arguments.announce = words, announce
    try:
        return int(arguments.verb(arguments) or 0)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except (LocalknError, KubeyamlError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # as with `logs | head`: discard the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # as with a full disk
        print(f"{error.filename or arguments.state_dir.root}: {error.strerror or error}", file=sys.stderr)
        return 1


def _up(arguments: argparse.Namespace) -> int | None:
    from localkn import up  # noqa: PLC0415 - the platform takes longer to import than all other verbs

    options = up.Options(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(up.Options)})
    up.check(options)
    if arguments.check:
        return None
    if arguments.detach and _READY_FD not in os.environ:
        return _detached(arguments)
    asyncio.run(up.run(options, ready=partial(_announce, arguments)))
    return None


def _announce(arguments: argparse.Namespace, text: str) -> None:
    arguments.announce(text)
    sys.stdout.flush()
    if _READY_FD in os.environ:
        with os.fdopen(int(os.environ[_READY_FD]), "w") as parent:
            parent.write(text)


def _detached(arguments: argparse.Namespace) -> int:
    """Run `up` in a new session and wait until it announces that it is ready, or ends."""
    state: PlatformDirectory = arguments.state_dir
    mine, its = os.pipe()
    with state.supervisor_log.open("ab") as log:
        earlier = log.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "localkn", *arguments.words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[its],
            env=os.environ | {_READY_FD: str(its)},
        )
    os.close(its)
    try:
        with os.fdopen(mine) as pipe:
            announced = pipe.read()
    except KeyboardInterrupt:
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise
    if announced:
        arguments.announce(announced)
        return 0
    child.wait()
    print(state.supervisor_log.read_bytes()[earlier:].decode(errors="replace").rstrip(), file=sys.stderr)
    return 1


def _down(arguments: argparse.Namespace) -> None:
    try:
        control.call(arguments.state_dir.socket("control"), "stop")
    except PlatformError:
        print("nothing was running")
        return
    arguments.state_dir.wait_until_free()
    print("stopped")


def _status(arguments: argparse.Namespace) -> None:
    ask = partial(control.call, arguments.state_dir.socket("control"), "status")
    if arguments.json:
        print(json.dumps(ask(), indent=2))
        return
    from localkn import table  # noqa: PLC0415 - rich takes longer to import than all the rest

    table.show(ask, watch=arguments.watch)


def _logs(arguments: argparse.Namespace) -> None:
    in_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in logs.merged(arguments.state_dir.logs, arguments.name, follow=arguments.follow):
        print(logs.coloured(line) if in_colour else line, flush=arguments.follow)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m localkn", description="Run Knative Services on this machine.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--state-dir", type=_state, required=True, help="directory of this platform's files")
    _add_up(verbs.add_parser("up", parents=[common], help="start the Services of some manifests"))
    verbs.add_parser("down", parents=[common], help="stop everything").set_defaults(verb=_down)
    status = verbs.add_parser("status", parents=[common], help="Services, revisions, instances")
    status.add_argument("--json", action="store_true", help="for machines")
    how = status.add_mutually_exclusive_group()
    how.add_argument("--once", dest="watch", action="store_const", const=False, help="print once and exit")
    how.add_argument("--watch", action="store_const", const=True, help="update every second; default on a terminal")
    status.set_defaults(verb=_status)
    printed = verbs.add_parser("logs", parents=[common], help="what instances printed, merged by time")
    printed.add_argument("name", nargs="?", default="", help="Service, revision or instance")
    printed.add_argument("-f", "--follow", action="store_true", help="follow")
    printed.set_defaults(verb=_logs)
    events.add_verbs(verbs.add_parser("events", parents=[common], help="what the broker holds; redrive dead letters"))
    kn.add_verbs(verbs.add_parser("kn", parents=[common], help="kn's verbs for Services and revisions"))
    return parser


def _add_up(start: argparse.ArgumentParser) -> None:
    start.add_argument("--manifests", type=Path, required=True, help="YAML file, directory, or kustomization")
    start.add_argument("--commands", type=Path, required=True, help="YAML file that maps images to commands")
    start.add_argument("--port", type=_port, required=True, help="loopback port of the public Service")
    start.add_argument("--check", action="store_true", help="start nothing; look at the port, the flags and the state")
    start.add_argument("--public", help="the public Service, if the manifests do not say")
    start.add_argument("--direct", action="store_true", help="one instance each, no ingress, no scaling")
    start.add_argument("--detach", action="store_true", help="return once everything is ready")
    start.add_argument(
        "--dashboard-port",
        type=int,
        metavar="N",
        help="show the platform on this loopback port, or a free one if taken",
    )
    start.add_argument(
        "--reports", type=Path, metavar="DIR", help="directory of reports on experiments and rollouts to show"
    )
    start.add_argument("--tls-cert", type=Path, help="certificate (PEM) to serve the public port with")
    start.add_argument("--tls-key", type=Path, help="its key (PEM)")
    start.add_argument(
        "--env-override", action="append", default=[], metavar="[SERVICE:]NAME=VALUE", help="change the environment"
    )
    start.add_argument(
        "--host", action="append", default=[], metavar="NAME", help="a further host that the public port answers to"
    )
    start.set_defaults(verb=_up)


def _port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"must be 1 to 65535, not {number}")
    return number


def _state(path: str) -> PlatformDirectory:
    return PlatformDirectory(Path(path).absolute())


if __name__ == "__main__":
    sys.exit(main())
