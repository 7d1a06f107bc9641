"""Runs the checks, and prints their findings."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from kubeyaml.errors import ManifestError
from tools.cluster import deployed, installed
from tools.cluster.findings import Finding, fault
from tools.cluster.reader import Cluster, KubectlCluster
from tools.cluster.wanted import WantedObjects
from tools.deployment.kubectl import KubectlError

Check = Callable[[Cluster, WantedObjects], Iterator[Finding]]

CHECKS: Final[tuple[Check, ...]] = (
    installed.check_versions,
    installed.check_control_plane,
    installed.check_gateway,
    installed.check_domain,
    installed.check_flags,
    installed.check_metrics,
    installed.check_issuer,
    deployed.check_values,
    deployed.check_secrets,
    deployed.check_model,
    deployed.check_store,
    deployed.check_services,
    deployed.check_events,
    deployed.check_certificates,
    deployed.check_spread,
)


def run(*, action: str, overlay: Path, kubectl: str, as_json: bool = False) -> int:  # noqa: ARG001 - the only action
    """Print the findings; return 1 if there is a fault."""
    try:
        wanted = WantedObjects(overlay)
    except ManifestError as error:
        print(error, file=sys.stderr)
        return 1
    findings = list(diagnose(KubectlCluster(shlex.split(kubectl)), wanted))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print("\n".join(map(str, findings)))
    return int(any(finding.level == "fault" for finding in findings))


def diagnose(cluster: Cluster, wanted: WantedObjects) -> Iterator[Finding]:
    """
    Yield the findings of all checks.

    If kubectl may not read a kind, the check ends with a fault that contains kubectl's message.
    """
    try:
        cluster.version()
    except KubectlError as error:
        yield fault(str(error), "check that kubectl reaches the cluster: kubectl cluster-info")
        return
    for check in CHECKS:
        try:
            yield from check(cluster, wanted)
        except KubectlError as error:
            yield fault(str(error), "give this kubectl the right to read that kind, or use another --kubectl")
