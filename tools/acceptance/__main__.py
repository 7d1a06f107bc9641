"""
`./run.sh acceptance`: find out whether a deployment does what it should, by doing it.

Asks it, hands it events, loads it until it scales out, updates each function and ends an instance of each under load.
The last three disturb whoever else uses it. Exit status 0 when all that was checked holds.
"""

import argparse
import json
import shlex
import ssl
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tools.acceptance.checks import Acceptance, CheckResult, LoadPace
from tools.acceptance.deployments import Address, ClusterDeployment, Deployment, DeploymentError, LocalDeployment
from tools.kn import KnError

CHECKS = ("ready", "answer", "interaction", "reply", "scale", "update", "end")


def main(words: Sequence[str] | None = None) -> int:
    """Check; return the exit status."""
    options = parser().parse_args(words)

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    platform = _platform(options)
    try:
        acceptance = Acceptance(
            platform,
            _door(options, platform),
            token=options.token_file.read_text().split()[0] if options.token_file else None,
            trust=ssl.create_default_context(cafile=options.ca_file) if options.ca_file else None,
            pace=LoadPace(callers=options.callers, load_s=options.seconds),
            users=options.users,
            tell=tell,
        )
    except (KnError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    findings = []
    for name in options.only or CHECKS:
        findings.append(_found(name, acceptance))
        tell(f"{'holds' if findings[-1].holds else 'FAILS'}  {name}: {findings[-1].seen}")
    acceptance.close()
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    return 0 if all(finding.holds for finding in findings) else 1


def _found(name: str, acceptance: Acceptance) -> CheckResult:
    """Run check *name*; an error of the deployment is a failed check."""
    try:
        return acceptance.checks[name]()
    except (DeploymentError, KnError, httpx.HTTPError, OSError, LookupError, ValueError) as error:
        return CheckResult(name, holds=False, seen=f"{type(error).__name__}: {error}")


def _platform(options: argparse.Namespace) -> Deployment:
    if not options.namespace:
        return LocalDeployment(options.state_dir)
    kubectl, kn = shlex.split(options.kubectl), shlex.split(options.kn)
    return ClusterDeployment(options.namespace, kubectl=kubectl, kn=kn, broker=options.broker)


def _door(options: argparse.Namespace, platform: Deployment) -> Address:
    """Return the address of recommend: its own URL, or the gateway with recommend's host name."""
    parts = urlsplit(platform.kn.service("recommend")["status"]["url"])
    host = options.host or parts.netloc
    if options.gateway:
        return Address(options.gateway, host)
    # Names below localhost are this machine (RFC 6761); not every resolver knows that.
    local = (parts.hostname or "").endswith("localhost")
    return Address(f"{parts.scheme}://127.0.0.1:{parts.port or 80}" if local else parts.geturl(), host)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb's flags."""
    parser = argparse.ArgumentParser(prog="./run.sh acceptance", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CHECKS, metavar="CHECK", help=f"of {', '.join(CHECKS)}")
    parser.add_argument("--callers", type=int, default=40, help="at a time, for scale (%(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        help="how long each load lasts; longer than three updates take (%(default)s)",
    )
    parser.add_argument("--users", type=int, default=1000, help="user_1 to user_N are asked for (%(default)s)")
    parser.add_argument("--json", action="store_true", help="for machines")
    where = parser.add_argument_group("where")
    where.add_argument("--namespace", help="on the cluster; without it the platform of --state-dir")
    where.add_argument(
        "--gateway", metavar="URL", help="connect here for recommend: the gateway, or a port-forward of it"
    )
    where.add_argument("--host", help="recommend's name at the gateway; its own without")
    where.add_argument("--broker", metavar="URL", help="connect here for the Broker: a port-forward of its ingress")
    where.add_argument("--token-file", type=Path, help="with a bearer token for recommend")
    where.add_argument("--ca-file", type=Path, help="whose HTTPS certificates are believed")
    where.add_argument("--kubectl", default="kubectl", help="the command (%(default)s)")
    where.add_argument("--kn", default="kn", help="the command (%(default)s)")
    where.add_argument("--state-dir", type=Path, default=Path(".recsys"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
