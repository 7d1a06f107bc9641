"""The congruence suite on the local platform: every change of a Service ends as on Knative, or as documented."""

import copy
import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from localkn.__main__ import main
from tests.localkn.running import Running, needs_envoy
from tools.congruence.runner import Subject, read_field, traffic_text
from tools.congruence.scenarios import SCENARIOS, Scenario, ScenarioStep
from tools.deployment.kn import Kn, KnError

SERVICE: dict[str, Any] = {
    "metadata": {"name": "front", "annotations": {"note": "1"}},
    "spec": {
        "template": {
            "metadata": {
                "annotations": {"autoscaling.knative.dev/target": "3", "client.knative.dev/user-image": "a:1"}
            },
            "spec": {
                "timeoutSeconds": 10,
                "containers": [
                    {
                        "image": "a:1",
                        "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {}}],
                        "resources": {"limits": {"cpu": 1}},
                    }
                ],
            },
        }
    },
    "status": {
        "latestCreatedRevisionName": "front-1",
        "latestReadyRevisionName": "front-1",
        "traffic": [{"revisionName": "front-1", "percent": 100, "latestRevision": True}],
    },
}


class FakeKn(Kn):
    """A kn that notes the updates. Each makes a revision with *target*; with *refusing*, each fails."""

    def __init__(self, *, target: str = "7", refusing: bool = False) -> None:
        super().__init__(["false"])
        self._body, self._target, self._refusing = copy.deepcopy(SERVICE), target, refusing
        self.flags: list[tuple[str, ...]] = []

    def service(self, name: str) -> dict[str, Any]:
        return copy.deepcopy(self._body)

    def update(self, name: str, *flags: str) -> None:
        self.flags.append(flags)
        if self._refusing:
            raise KnError("refused")
        made = f"front-{len(self.flags) + 1}"
        self._body["status"] = {
            "latestCreatedRevisionName": made,
            "latestReadyRevisionName": made,
            "traffic": [{"revisionName": made, "percent": 100, "latestRevision": True}],
        }
        annotations = self._body["spec"]["template"]["metadata"]["annotations"]
        annotations["autoscaling.knative.dev/target"] = self._target


def scenario(**expected: Any) -> Scenario:
    fields = {"annotation:autoscaling.knative.dev/target": "7"}
    step = ScenarioStep(
        "--scale-target 7", **{"result": "made", "traffic": "1@latest=100", "fields": fields, **expected}
    )
    return Scenario("target", [step])


def test_a_congruent_step_yields_nothing_and_is_undone() -> None:
    """The former annotations of Knative come back; annotations of kn itself stay as they are."""
    kn = FakeKn()
    assert list(Subject(kn, "front", is_local=True).run(scenario())) == []
    restored = ("--annotation-revision", "autoscaling.knative.dev/target=3", "--traffic", "@latest=100")
    assert kn.flags == [("--scale-target", "7"), restored]


@pytest.mark.parametrize(
    ("kn", "seen"),
    [
        (FakeKn(target="8"), "made; 1@latest=100; annotation:autoscaling.knative.dev/target 8"),
        (FakeKn(refusing=True), "refused; 0@latest=100; annotation:autoscaling.knative.dev/target 3"),
    ],
)
def test_a_difference_is_reported(kn: FakeKn, seen: str) -> None:
    """The report has the flags, the expectation, and what was seen. A refused change needs no undoing."""
    (found,) = Subject(kn, "front", is_local=True).run(scenario())
    expected = "made; 1@latest=100; annotation:autoscaling.knative.dev/target 7"
    assert (found.scenario, found.flags, found.expected) == ("target", "--scale-target 7", expected)
    assert found.seen == seen


@pytest.mark.parametrize("is_local", [True, False])
def test_a_documented_difference_counts_on_the_local_platform_alone(*, is_local: bool) -> None:
    """The local platform may refuse what Knative does; a cluster may not."""
    refused = scenario(here="refused", traffic_here="0@latest=100", fields={})
    assert bool(list(Subject(FakeKn(refusing=True), "front", is_local=is_local).run(refused))) is not is_local


def test_fields_and_traffic_are_read() -> None:
    """A field that is not set has no value. Revisions have numbers in the order of their creation, and others keep their names."""
    names = ("service:note", "env:A", "env:B", "env:C", "spec:timeoutSeconds", "limits:cpu", "requests:cpu")
    assert [read_field(SERVICE, name) for name in names] == ["1", "1", None, None, "10", "1", None]
    targets = [{"revisionName": "b", "percent": 70, "latestRevision": True}, {"revisionName": "a", "tag": "old"}]
    status = {"status": {"traffic": [*targets, {"revisionName": "x", "percent": 30}]}}
    assert traffic_text(status, ["a", "b"]) == "0#old=0,1@latest=70,x=30"


class KnHere(Kn):
    """The local kn in this process: starting one for each command takes longer than most commands."""

    def _run(self, words: Sequence[str]) -> str:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as errors:
            try:
                status = main([*self.command, *words])
            except SystemExit as wrong_words:
                status = int(wrong_words.code or 0)
        if status:
            raise KnError(errors.getvalue().strip())
        return out.getvalue()


@pytest.fixture(scope="module")
def subject(module_platform: Running) -> Subject:
    """Return the Service `front` of a running platform; every scenario leaves it as it was."""
    started = module_platform.up()
    assert started.returncode == 0, started.stderr
    kn = KnHere(["kn", "--state-dir", str(module_platform.state.root)])
    return Subject(kn, "front", is_local=True)


@needs_envoy
@pytest.mark.scenario
@pytest.mark.parametrize("each", SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])
def test_the_platform_does_what_knative_does(subject: Subject, each: Scenario) -> None:
    """kn's result, the new revision, the division of traffic and the changed fields are those of Knative."""
    assert list(subject.run(each)) == []


def test_scenarios_have_distinct_names_and_documented_differences() -> None:
    """A scenario that ends differently here is in the table of differences."""
    names = [each.name for each in SCENARIOS]
    assert len(set(names)) == len(names) >= 40
    page = (Path(__file__).parents[2] / "docs/reference/localkn.md").read_text("utf-8")
    differing = [each.name for each in SCENARIOS if any(step.here or step.traffic_here for step in each.steps)]
    assert [name for name in differing if f"(`{name}`)" not in page] == []
