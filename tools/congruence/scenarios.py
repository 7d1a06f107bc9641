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

Result = Literal["made", "kept", "refused", "failed"]

SCALING = "autoscaling.knative.dev/"
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


def _set(name: str, flags: str, field_: str, value: str) -> Scenario:
    """Return a scenario of one flag that sets one field of the template."""
    return Scenario(name, [ScenarioStep(flags, "made", "1@latest=100", {field_: value})])


def _annotation(name: str, flags: str, key: str, value: str) -> Scenario:
    return _set(name, flags, f"annotation:{SCALING}{key}", value)


def _refused(name: str, flags: str) -> Scenario:
    return Scenario(name, [ScenarioStep(flags, "refused")])


SCENARIOS: Sequence[Scenario] = (
    # The template.
    Scenario(
        "env",
        [
            ScenarioStep("--env CONGRUENCE=1", "made", "1@latest=100", {"env:CONGRUENCE": "1"}),
            ScenarioStep("--env CONGRUENCE=2", "made", "2@latest=100", {"env:CONGRUENCE": "2"}),
            # kn notes the time of every update of the template, so a repeated value makes a revision as well.
            ScenarioStep("--env CONGRUENCE=2", "made", "3@latest=100", {"env:CONGRUENCE": "2"}),
            ScenarioStep("--env CONGRUENCE-", "made", "4@latest=100", {"env:CONGRUENCE": None}),
        ],
    ),
    Scenario("env-absent", [ScenarioStep("--env CONGRUENCE_ABSENT-", "made", "1@latest=100")]),
    Scenario(
        "env-two",
        [
            ScenarioStep(
                "--env CONGRUENCE_A=1 --env CONGRUENCE_B=a=b",
                "made",
                "1@latest=100",
                {"env:CONGRUENCE_A": "1", "env:CONGRUENCE_B": "a=b"},
            )
        ],
    ),
    _set(
        "annotation-revision",
        "--annotation-revision congruence.example/note=1",
        "annotation:congruence.example/note",
        "1",
    ),
    Scenario(
        "annotation-service",
        [
            ScenarioStep(
                "--annotation-service congruence.example/note=1",
                "made",
                "1@latest=100",
                {"service:congruence.example/note": "1"},
            ),
            ScenarioStep(
                "--annotation-service congruence.example/note-",
                "made",
                "2@latest=100",
                {"service:congruence.example/note": None},
            ),
        ],
    ),
    _annotation("scale", "--scale 1..3", "max-scale", "3"),
    _annotation("scale-min", "--scale-min 2", "min-scale", "2"),
    _annotation("scale-max", "--scale-max 4", "max-scale", "4"),
    _annotation("scale-init", "--scale-init 2", "initial-scale", "2"),
    _annotation("scale-target", "--scale-target 7", "target", "7"),
    _annotation("scale-activation", "--scale-activation 2", "activation-scale", "2"),
    _annotation("scale-metric", "--scale-metric rps", "metric", "rps"),
    _annotation("scale-window", "--scale-window 20s", "window", "20s"),
    _annotation("scale-utilization", "--scale-utilization 60", "target-utilization-percentage", "60"),
    _set("concurrency-limit", "--concurrency-limit 50", "spec:containerConcurrency", "50"),
    _set("timeout", "--timeout 20", "spec:timeoutSeconds", "20"),
    _set("request", "--request memory=64Mi", "requests:memory", "64Mi"),
    _set("limit", "--limit memory=1Gi", "limits:memory", "1Gi"),
    # What admission refuses.
    _refused("scale-min-above-max", "--scale-min 5 --scale-max 2"),
    _refused("scale-target-no-number", "--scale-target many"),
    _refused("scale-target-zero", f"--annotation-revision {SCALING}target=0"),
    _refused("scale-metric-unknown", "--scale-metric happiness"),
    _refused("scale-window-short", "--scale-window 1s"),
    _refused("scale-window-long", "--scale-window 2h"),
    _refused("scale-utilization-above-100", "--scale-utilization 101"),
    _refused("concurrency-limit-high", "--concurrency-limit 1001"),
    _refused("timeout-high", "--timeout 601"),
    # What kn refuses.
    _refused("flag-unknown", "--congruence 1"),
    _refused("env-malformed", "--env CONGRUENCE"),
    _refused("traffic-above-100", "--traffic {0}=60 --traffic @latest=60"),
    _refused("traffic-rest-unclear", "--traffic {0}=60"),
    _refused("traffic-malformed", "--traffic {0}=many"),
    _refused("traffic-unknown-revision", "--traffic congruence-none=100"),
    _refused("annotation-service-of-scaling", f"--annotation-service {SCALING}target=3"),
    _refused("scale-malformed", "--scale many"),
    _refused("scale-twice", "--scale 1..3 --scale-min 1"),
    _refused("untag-absent", "--untag congruence"),
    _refused("tag-upper-case", "--tag {0}=Congruence"),
    # Tags and traffic.
    Scenario(
        "tag",
        [
            ScenarioStep("--tag {0}=congruence-a", "kept", "0#congruence-a=0,0@latest=100"),
            ScenarioStep("--tag {0}=congruence-a", "kept", "0#congruence-a=0,0@latest=100"),
            ScenarioStep("--tag @latest=congruence-b", "kept", "0#congruence-a=0,0@latest#congruence-b=100"),
            ScenarioStep("--untag congruence-a", "kept", "0@latest#congruence-b=100"),
            ScenarioStep("--untag congruence-b", "kept", "0@latest=100"),
        ],
    ),
    Scenario(
        "tag-taken",
        [
            ScenarioStep("--tag {0}=congruence", "kept", "0#congruence=0,0@latest=100"),
            ScenarioStep("--tag @latest=congruence", "refused", "0#congruence=0,0@latest=100"),
            ScenarioStep("--untag congruence --tag @latest=congruence", "kept", "0@latest#congruence=100"),
        ],
    ),
    Scenario(
        "split",
        [
            ScenarioStep("--env CONGRUENCE=1 --traffic {0}=90 --traffic @latest=10", "made", "0=90,1@latest=10"),
            ScenarioStep("--traffic {0}=50 --traffic {1}=50", "kept", "0=50,1=50"),
            ScenarioStep("--traffic {1}=100", "kept", "1=100"),
            ScenarioStep("--traffic @latest=100", "kept", "1@latest=100"),
        ],
    ),
    Scenario(
        "split-by-tag",
        [
            ScenarioStep("--tag {0}=congruence", "kept", "0#congruence=0,0@latest=100"),
            ScenarioStep("--env CONGRUENCE=1", "made", "0#congruence=0,1@latest=100"),
            ScenarioStep("--traffic congruence=30 --traffic @latest=70", "kept", "0#congruence=30,1@latest=70"),
        ],
    ),
    Scenario(
        "rollback",
        [
            ScenarioStep("--env CONGRUENCE=1", "made", "1@latest=100"),
            ScenarioStep("--traffic {0}=100", "kept", "0=100"),
            ScenarioStep("--env CONGRUENCE=2", "made", "0=100"),
            ScenarioStep("--traffic @latest=100", "kept", "2@latest=100"),
        ],
    ),
    Scenario(
        "image-absent",
        [
            ScenarioStep(f"--image {IMAGE}", "failed", here="refused"),
            ScenarioStep("--image {image}", "made", "2@latest=100", traffic_here="1@latest=100"),
        ],
    ),
)
