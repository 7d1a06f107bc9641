"""`./run.sh congruence`: carry out changes of a Service, and report where the platform differs from Knative."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tools.congruence.runner import StepDifference, Subject
from tools.congruence.scenarios import SCENARIOS
from tools.deployment.kn import KnError, kn_of


def compare(
    *,
    scenarios: Sequence[str] | None = None,
    service: str,
    namespace: str | None = None,
    kn: str,
    as_json: bool = False,
    state_dir: Path,
) -> int:
    """Run the scenarios; return the exit status: 1 if a step differs or kn fails."""
    chosen = [each for each in SCENARIOS if not scenarios or each.name in scenarios]
    if unknown := set(scenarios or ()) - {each.name for each in chosen}:
        known = ", ".join(each.name for each in SCENARIOS)
        print(f"{', '.join(sorted(unknown))}: no such scenario; there are {known}", file=sys.stderr)
        return 2
    differences: list[StepDifference] = []
    try:
        subject = Subject(kn_of(kn, namespace, state_dir), service, is_local=not namespace)
        for number, scenario in enumerate(chosen, 1):
            found = list(subject.run(scenario))
            differences += found
            print(
                f"{number}/{len(chosen)} {scenario.name}: {'differs' if found else 'ok'}", file=sys.stderr, flush=True
            )
    except KnError as error:
        print(f"{service}: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps([asdict(each) for each in differences], indent=2))
    else:
        for each in differences:
            print(f"{each.scenario}: kn service update {service} {each.flags}")
            print(f"    Knative: {each.expected}\n    here:    {each.seen}")
        print(f"{len(chosen)} scenarios, {len(differences)} steps differ")
    return int(bool(differences))
