"""kn's verbs against a recorded platform."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from localkn import control
from localkn.__main__ import main

TEMPLATE = {
    "metadata": {"name": "front-v1"},
    "spec": {"containers": [{"image": "a:1", "env": [{"name": "A", "value": "1"}]}]},
}
SERVICE = {
    "apiVersion": "serving.knative.dev/v1",
    "kind": "Service",
    "metadata": {"name": "front", "namespace": "default", "generation": 1},
    "spec": {"template": TEMPLATE},
    "status": {
        "url": "http://127.0.0.1:1",
        "latestReadyRevisionName": "front-v1",
        "latestCreatedRevisionName": "front-v1",
        "conditions": [{"type": "Ready", "status": "True"}],
        "traffic": [
            {"revisionName": "front-v1", "percent": 100, "latestRevision": True},
            {"revisionName": "front-v0", "percent": 0, "latestRevision": False, "tag": "old", "url": "http://old"},
        ],
    },
}


def revision(name: str, problem: str | None) -> dict[str, Any]:
    labels = {"serving.knative.dev/service": "front", "serving.knative.dev/configurationGeneration": "1"}
    condition = {"status": "False", "message": problem} if problem else {"status": "True"}
    status = {"actualReplicas": 1, "desiredReplicas": 2, "conditions": [condition]}
    return {
        "kind": "Revision",
        "metadata": {"name": name, "labels": labels},
        "spec": TEMPLATE["spec"],
        "status": status,
    }


@pytest.fixture
def kn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that runs a verb and returns what was applied."""
    applied: list[dict[str, Any]] = []

    def call(path: Path, verb: str, **arguments: Any) -> Any:
        if verb == "apply":
            applied.append(arguments)
        revisions = [revision("front-v0", None), revision("front-v1", "broken\nin detail")]
        return copy.deepcopy({"services": [SERVICE], "revisions": revisions}.get(verb))

    def run(*words: str, status: int = 0) -> list[dict[str, Any]]:
        assert main(["kn", "--state-dir", str(tmp_path), *words]) == status
        return applied

    monkeypatch.setattr(control, "call", call)
    return run


Kn = Callable[..., list[dict[str, Any]]]


def test_flags_edit_the_template(kn: Kn) -> None:
    """Each flag sets kn's field; the template loses its revision name, so that the platform names the next revision."""
    (applied,) = kn(
        *(
            "service",
            "update",
            "front",
            "--image",
            "a:2",
            "--env",
            "B=2",
            "-e",
            "A-",
            "--scale",
            "2..4",
            "--scale-init=3",
        ),
        *(
            "--scale-target=7",
            "--scale-window=10s",
            "--concurrency-limit=8",
            "--timeout=20",
            "--limit=cpu=2,memory=1Gi",
        ),
        *("--request", "cpu=1", "-a", "x/y=z", "--annotation-service", "u=v", "--wait-timeout", "9"),
    )
    service, template = applied["service"], applied["service"]["spec"]["template"]
    assert (applied["wait_s"], "status" in service) == (9, False)
    assert service["metadata"]["annotations"] == {"u": "v", "x/y": "z"}
    group = "autoscaling.knative.dev"
    assert template["metadata"]["annotations"].pop("client.knative.dev/updateTimestamp")
    assert template["metadata"] == {"annotations": {
        "x/y": "z", f"{group}/min-scale": "2", f"{group}/max-scale": "4", f"{group}/initial-scale": "3",
        f"{group}/target": "7", f"{group}/window": "10s",
    }}  # fmt: skip
    assert (template["spec"]["containerConcurrency"], template["spec"]["timeoutSeconds"]) == (8, 20)
    (container,) = template["spec"]["containers"]
    assert (container["image"], container["env"]) == ("a:2", [{"name": "B", "value": "2"}])
    assert container["resources"] == {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}


@pytest.mark.parametrize("flag", ["--annotation-revision", "--annotation-service"])
def test_only_annotation_removes_annotations(kn: Kn, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    """Of kn's three flags for annotations, `--annotation` alone removes one; the others set a name that is refused."""
    assert kn("service", "update", "front", flag, "x/y-", status=1) == []
    assert "kn removes one with --annotation x/y-" in capsys.readouterr().err
    (removed,) = kn("service", "update", "front", "--annotation", "x/y-")
    assert "x/y" not in removed["service"]["spec"]["template"]["metadata"]["annotations"]


def test_scale_can_be_a_number_or_an_open_range(kn: Kn) -> None:
    """`--scale` accepts 5, 1.. and ..5, as kn does."""
    for scale in ("5", "1..", "..5"):
        kn("service", "update", "front", "--scale", scale)
    notes = [a["service"]["spec"]["template"]["metadata"]["annotations"] for a in kn("service", "list")]
    ends = [(n.get("autoscaling.knative.dev/min-scale"), n.get("autoscaling.knative.dev/max-scale")) for n in notes]
    assert ends == [("5", "5"), ("1", None), (None, "5")]


def test_traffic_and_revision_name_flags(kn: Kn) -> None:
    """A change of traffic alone keeps the template, and --no-wait returns immediately."""
    (first,) = kn("service", "update", "front", "--traffic", "front-v0=100", "--no-wait")
    assert first["service"]["spec"]["traffic"] == [{"revisionName": "front-v0", "percent": 100}]
    assert (first["service"]["spec"]["template"], first["wait_s"]) == (TEMPLATE, 0)
    applied = kn("service", "update", "front", "--env", "A=2", "--revision-name", "front-v2")
    assert applied[-1]["service"]["spec"]["template"]["metadata"]["name"] == "front-v2"


def test_an_update_without_a_change_applies_nothing(kn: Kn, capsys: pytest.CaptureFixture[str]) -> None:
    """The name of a revision alone changes nothing."""
    assert kn("service", "update", "front", "--revision-name", "front-v2") == []
    assert "No new revision has been created." in capsys.readouterr().out


@pytest.mark.parametrize("flags", [("--env", "A=1"), ("--annotation-service", "x/y=1"), ("--scale", "1..2")])
def test_every_update_of_the_template_makes_a_revision(kn: Kn, flags: tuple[str, str]) -> None:
    """The time of the update is in the template, so that a repeated value changes it as well."""
    kn("service", "update", "front", *flags)
    first, second = (each["service"]["spec"]["template"] for each in kn("service", "update", "front", *flags))
    moments = [each["metadata"]["annotations"]["client.knative.dev/updateTimestamp"] for each in (first, second)]
    assert moments[0] < moments[1]
    assert "name" not in first["metadata"]


def test_objects_are_printed_in_the_requested_format(kn: Kn, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON and YAML print the Kubernetes objects; name and url print one line each."""

    def shown(*words: str) -> str:
        kn(*words)
        return capsys.readouterr().out

    assert json.loads(shown("service", "describe", "front", "-o", "json")) == SERVICE
    assert yaml.safe_load(shown("service", "describe", "front", "-o", "yaml")) == SERVICE
    assert shown("service", "describe", "front", "-o", "url") == "http://127.0.0.1:1\n"
    assert shown("service", "list", "-o", "name") == "service.serving.knative.dev/front\n"
    assert len(json.loads(shown("revision", "list", "-s", "front", "-o", "json"))["items"]) == 2
    assert json.loads(shown("revision", "list", "-s", "other", "-o", "json"))["items"] == []
    assert shown("revision", "list", "-s", "other") == "\n"
    with pytest.raises(SystemExit):
        kn("service", "list", "-s", "front")


def test_tables_show_services_and_revisions(kn: Kn, capsys: pytest.CaptureFixture[str]) -> None:
    """Lists are tables, descriptions are lines, and a reason is cut to its first line."""
    kn("service", "list")
    kn("revision", "list")
    kn("revision", "describe", "front-v1")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["NAME", "URL", "LATEST", "TRAFFIC", "READY", "REASON"]
    assert lines[1][3:] == ["100%", "@latest", "(front-v1),", "0%", "(front-v0)", "#old", "True"]
    assert lines[2] == ["NAME", "SERVICE", "TRAFFIC", "TAGS", "GENERATION", "REPLICAS", "READY", "REASON"]
    assert lines[3] == ["front-v0", "front", "old", "1", "1/2", "True"]
    assert lines[4] == ["front-v1", "front", "100%", "1", "1/2", "False", "broken"]
    assert ["Reason:", "broken"] in lines


def test_an_unknown_object_is_not_found(kn: Kn, capsys: pytest.CaptureFixture[str]) -> None:
    """The error has the words of the Kubernetes API."""
    kn("service", "describe", "other", status=1)
    assert 'services.serving.knative.dev "other" not found' in capsys.readouterr().err
