"""
The scenarios of the congruence suite: changes of a Service, and what Knative and kn do with each.

A scenario begins with one revision, which gets all traffic. A step is a `kn service update`. In its flags, {0} is the
name of that revision, {1} that of the first revision made by the scenario, and so on.

    made      kn succeeds; one new revision is ready
    kept      kn succeeds; no revision is made
    refused   kn fails; nothing changes
    failed    kn fails; one new revision is not ready

Sources: pkg/commands/service/configuration_edit_flags.go and pkg/traffic/compute.go of knative/client;
pkg/apis/autoscaling/annotation_validation.go and pkg/apis/serving/v1 of knative/serving.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from kubeyaml.annotations import SCALING

Result = Literal["made", "kept", "refused", "failed"]

IMAGE = "congruence.invalid/none:1"
"""No registry has this image: the name is reserved (RFC 6761)."""


@dataclass(frozen=True)
class ScenarioStep:
    """
    A change, and what follows from it.

    Attributes:
        flags: The flags of `kn service update`.
        result: The result.
        traffic: The division of traffic afterwards: `REVISION=PERCENT`, with `@latest` if the target follows the latest
            revision, and with `#TAG` for a tag.
        fields: Values in the Service afterwards, by `section:name`; None for a value that is not set.
        here: The result on the local platform where it differs, as docs/reference/localkn.md lists.
        traffic_here: The division of traffic on the local platform where it differs.
    """

    flags: str
    result: Result
    traffic: str = "0@latest=100"
    fields: Mapping[str, str | None] = field(default_factory=dict)
    here: Result | None = None
    traffic_here: str | None = None


@dataclass(frozen=True)
class Scenario:
    """
    Steps that belong together.

    Attributes:
        name: The name, for the report and the command line.
        steps: The steps, in order.
    """

    name: str
    steps: Sequence[ScenarioStep]


def _set(flags: str, field_: str, value: str) -> Sequence[ScenarioStep]:
    """Return one step, whose flag sets one field of the template."""
    return [ScenarioStep(flags, "made", "1@latest=100", {field_: value})]


def _annotation(flags: str, key: str, value: str) -> Sequence[ScenarioStep]:
    return _set(flags, f"annotation:{SCALING}/{key}", value)


def _refused(flags: str) -> Sequence[ScenarioStep]:
    return [ScenarioStep(flags, "refused")]


_STEPS: Mapping[str, Sequence[ScenarioStep]] = {
    # The template.
    "env": [
        ScenarioStep("--env CONGRUENCE=1", "made", "1@latest=100", {"env:CONGRUENCE": "1"}),
        ScenarioStep("--env CONGRUENCE=2", "made", "2@latest=100", {"env:CONGRUENCE": "2"}),
        # kn notes the time of every update of the template, so a repeated value makes a revision as well.
        ScenarioStep("--env CONGRUENCE=2", "made", "3@latest=100", {"env:CONGRUENCE": "2"}),
        ScenarioStep("--env CONGRUENCE-", "made", "4@latest=100", {"env:CONGRUENCE": None}),
    ],
    "env-absent": [ScenarioStep("--env CONGRUENCE_ABSENT-", "made", "1@latest=100")],
    "env-two": [
        ScenarioStep(
            "--env CONGRUENCE_A=1 --env CONGRUENCE_B=a=b",
            "made",
            "1@latest=100",
            {"env:CONGRUENCE_A": "1", "env:CONGRUENCE_B": "a=b"},
        )
    ],
    "annotation-revision": [
        ScenarioStep(
            "--annotation-revision congruence.example/note=1",
            "made",
            "1@latest=100",
            {"annotation:congruence.example/note": "1"},
        ),
        # kn takes the minus sign for a part of the name, which Kubernetes refuses.
        ScenarioStep("--annotation-revision congruence.example/note-", "refused", "1@latest=100"),
        ScenarioStep(
            "--annotation congruence.example/note- --annotation congruence.example/note--",
            "made",
            "2@latest=100",
            {"annotation:congruence.example/note": None},
        ),
    ],
    "annotation-service": [
        ScenarioStep(
            "--annotation-service congruence.example/note=1",
            "made",
            "1@latest=100",
            {"service:congruence.example/note": "1"},
        ),
        ScenarioStep(
            "--annotation-service congruence.example/note-",
            "refused",
            "1@latest=100",
            {"service:congruence.example/note": "1"},
        ),
        ScenarioStep(
            "--annotation congruence.example/note-",
            "made",
            "2@latest=100",
            {"service:congruence.example/note": None},
        ),
    ],
    "scale": _annotation("--scale 1..3", "max-scale", "3"),
    "scale-min": _annotation("--scale-min 2", "min-scale", "2"),
    "scale-max": _annotation("--scale-max 4", "max-scale", "4"),
    "scale-init": _annotation("--scale-init 2", "initial-scale", "2"),
    "scale-target": _annotation("--scale-target 7", "target", "7"),
    "scale-activation": _annotation("--scale-activation 2", "activation-scale", "2"),
    "scale-metric": _annotation("--scale-metric rps", "metric", "rps"),
    "scale-window": _annotation("--scale-window 20s", "window", "20s"),
    "scale-utilization": _annotation("--scale-utilization 60", "target-utilization-percentage", "60"),
    "concurrency-limit": _set("--concurrency-limit 50", "spec:containerConcurrency", "50"),
    "timeout": _set("--timeout 20", "spec:timeoutSeconds", "20"),
    "request": _set("--request memory=64Mi", "requests:memory", "64Mi"),
    "limit": _set("--limit memory=1Gi", "limits:memory", "1Gi"),
    # What admission refuses.
    "scale-min-above-max": _refused("--scale-min 5 --scale-max 2"),
    "scale-target-no-number": _refused("--scale-target many"),
    "scale-target-zero": _refused(f"--annotation-revision {SCALING}/target=0"),
    "scale-metric-unknown": _refused("--scale-metric happiness"),
    "scale-window-short": _refused("--scale-window 1s"),
    "scale-window-long": _refused("--scale-window 2h"),
    "scale-utilization-above-100": _refused("--scale-utilization 101"),
    "concurrency-limit-high": _refused("--concurrency-limit 1001"),
    "timeout-high": _refused("--timeout 601"),
    # What kn refuses.
    "flag-unknown": _refused("--congruence 1"),
    "env-malformed": _refused("--env CONGRUENCE"),
    "traffic-above-100": _refused("--traffic {0}=60 --traffic @latest=60"),
    "traffic-rest-unclear": _refused("--traffic {0}=60"),
    "traffic-malformed": _refused("--traffic {0}=many"),
    "traffic-unknown-revision": _refused("--traffic congruence-none=100"),
    "annotation-service-of-scaling": _refused(f"--annotation-service {SCALING}/target=3"),
    "scale-malformed": _refused("--scale many"),
    "scale-twice": _refused("--scale 1..3 --scale-min 1"),
    "untag-absent": _refused("--untag congruence"),
    "tag-upper-case": _refused("--tag {0}=Congruence"),
    # Tags and traffic.
    "tag": [
        ScenarioStep("--tag {0}=congruence-a", "kept", "0#congruence-a=0,0@latest=100"),
        ScenarioStep("--tag {0}=congruence-a", "kept", "0#congruence-a=0,0@latest=100"),
        ScenarioStep("--tag @latest=congruence-b", "kept", "0#congruence-a=0,0@latest#congruence-b=100"),
        ScenarioStep("--untag congruence-a", "kept", "0@latest#congruence-b=100"),
        ScenarioStep("--untag congruence-b", "kept", "0@latest=100"),
    ],
    "tag-taken": [
        ScenarioStep("--tag {0}=congruence", "kept", "0#congruence=0,0@latest=100"),
        ScenarioStep("--tag @latest=congruence", "refused", "0#congruence=0,0@latest=100"),
        ScenarioStep("--untag congruence --tag @latest=congruence", "kept", "0@latest#congruence=100"),
    ],
    "split": [
        ScenarioStep("--env CONGRUENCE=1 --traffic {0}=90 --traffic @latest=10", "made", "0=90,1@latest=10"),
        ScenarioStep("--traffic {0}=50 --traffic {1}=50", "kept", "0=50,1=50"),
        ScenarioStep("--traffic {1}=100", "kept", "1=100"),
        ScenarioStep("--traffic @latest=100", "kept", "1@latest=100"),
    ],
    "split-by-tag": [
        ScenarioStep("--tag {0}=congruence", "kept", "0#congruence=0,0@latest=100"),
        ScenarioStep("--env CONGRUENCE=1", "made", "0#congruence=0,1@latest=100"),
        ScenarioStep("--traffic congruence=30 --traffic @latest=70", "kept", "0#congruence=30,1@latest=70"),
    ],
    "rollback": [
        ScenarioStep("--env CONGRUENCE=1", "made", "1@latest=100"),
        ScenarioStep("--traffic {0}=100", "kept", "0=100"),
        ScenarioStep("--env CONGRUENCE=2", "made", "0=100"),
        ScenarioStep("--traffic @latest=100", "kept", "2@latest=100"),
    ],
    "image-absent": [
        ScenarioStep(f"--image {IMAGE}", "failed", here="refused"),
        ScenarioStep("--image {image}", "made", "2@latest=100", traffic_here="1@latest=100"),
    ],
}

SCENARIOS = [Scenario(name, steps) for name, steps in _STEPS.items()]
