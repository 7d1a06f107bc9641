"""
`./run.sh acceptance`: test a deployment by using it.

It sends requests and events, applies load until the deployment scales out, updates each function, and ends an instance
of each function under load. The last three checks disturb other users of the deployment.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from loadtests.population import known_users
from localkn.errors import LocalknError
from tools.acceptance.checks import Acceptance, CheckResult, LoadPace
from tools.acceptance.deployments import Address, ClusterDeployment, Deployment, LocalDeployment
from tools.deployment.credentials import read_authorities, read_token
from tools.deployment.kn import KnError, url_of
from tools.deployment.kubectl import KubectlError


def accept(
    *,
    checks: Sequence[str] | None = None,
    callers: int,
    seconds: float,
    users: int,
    user_ids: Path | None = None,
    as_json: bool = False,
    namespace: str | None = None,
    gateway: str | None = None,
    host: str | None = None,
    broker: str | None = None,
    token_file: Path | None = None,
    ca_file: Path | None = None,
    kubectl: str,
    kn: str,
    state_dir: Path,
) -> int:
    """Check; return the exit status."""

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    deployment: Deployment = LocalDeployment(state_dir)
    if namespace:
        deployment = ClusterDeployment(namespace, kubectl=shlex.split(kubectl), kn=shlex.split(kn), broker=broker)
    try:
        acceptance = Acceptance(
            deployment,
            _door(deployment, gateway=gateway, host=host),
            token=read_token(token_file),
            trust=read_authorities(ca_file),
            pace=LoadPace(callers=callers, load_s=seconds),
            users=known_users(user_ids, most=users),
            tell=tell,
        )
    except (KnError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    findings = []
    for name in checks or acceptance.checks:
        findings.append(_found(name, acceptance))
        tell(f"{'holds' if findings[-1].holds else 'FAILS'}  {name}: {findings[-1].seen}")
    acceptance.close()
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    return 0 if all(finding.holds for finding in findings) else 1


def _found(name: str, acceptance: Acceptance) -> CheckResult:
    """Run check *name*; an error of the deployment is a failed check."""
    try:
        return acceptance.checks[name]()
    except httpx.RequestError as error:
        return CheckResult(name, holds=False, seen=f"{error.request.url}: {type(error).__name__}: {error}")
    except (KnError, KubectlError, LocalknError, httpx.HTTPError, OSError, LookupError, ValueError) as error:
        return CheckResult(name, holds=False, seen=f"{type(error).__name__}: {error}")


def _door(deployment: Deployment, *, gateway: str | None, host: str | None) -> Address:
    """Return the address of recommend: its own URL, the one with the name *host*, or the gateway with either name."""
    parts = urlsplit(url_of(deployment.kn.service("recommend"), gateway=gateway))
    if gateway:
        return Address(gateway, host or parts.netloc)
    if host:
        return Address(f"{parts.scheme}://{host}", host)
    # Names below localhost are this machine (RFC 6761); not every resolver knows that.
    local = (parts.hostname or "").endswith("localhost")
    return Address(f"{parts.scheme}://127.0.0.1:{parts.port or 80}" if local else parts.geturl(), parts.netloc)
