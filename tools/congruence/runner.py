"""Run scenarios on a Service, and compare each step with its expectation."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubeyaml.annotations import annotations_of
from tools.congruence.scenarios import Result, Scenario, ScenarioStep
from tools.deployment.kn import Kn, KnError
from tools.deployment.undo import undo

_LATEST = "@latest=100"


@dataclass(frozen=True)
class StepDifference:
    """A step whose outcome is not the expected one."""

    scenario: str
    flags: str
    expected: str
    seen: str


class Subject:
    """
    The Service that scenarios change.

    Args:
        kn: Runs kn.
        name: Name of the Service, which is ready and sends all traffic to its latest revision.
        is_local: Whether the Service runs on the local platform.

    Raises:
        KnError: kn cannot describe the Service.
    """

    def __init__(self, kn: Kn, name: str, *, is_local: bool) -> None:
        self._kn, self._name, self._is_local = kn, name, is_local
        self._service = kn.service(name)
        self._image = _container(self._service)["image"]

    def run(self, scenario: Scenario) -> Iterator[StepDifference]:
        """
        Yield the steps of *scenario* that differ; undo the steps afterwards.

        Raises:
            KnError: kn cannot describe the Service, or the steps cannot be undone.
        """
        before = self._service
        revisions = [before["status"]["latestReadyRevisionName"]]
        try:
            for step in scenario.steps:
                yield from self._differences(scenario, step, revisions)
        finally:
            self._undo(before)

    def _differences(self, scenario: Scenario, step: ScenarioStep, revisions: list[str]) -> Iterator[StepDifference]:
        flags = step.flags.format(*revisions, image=self._image)
        result = self._apply(flags, revisions)
        fields = ((name, read_field(self._service, name)) for name in step.fields)
        seen = _describe(result, traffic_text(self._service, revisions), fields)
        wanted_result = (self._is_local and step.here) or step.result
        wanted = _describe(wanted_result, (self._is_local and step.traffic_here) or step.traffic, step.fields.items())
        if seen != wanted:
            yield StepDifference(scenario.name, flags, wanted, seen)

    def _apply(self, flags: str, revisions: list[str]) -> Result:
        """Run `kn service update`, note a new revision in *revisions*, and return the result."""
        before = self._service["status"]["latestCreatedRevisionName"]
        try:
            self._kn.update(self._name, *shlex.split(flags))
        except KnError:
            succeeded = False
        else:
            succeeded = True
        self._service = self._kn.service(self._name)
        created = self._service["status"]["latestCreatedRevisionName"]
        if created == before:
            return "kept" if succeeded else "refused"
        revisions.append(created)
        return "made" if succeeded else "failed"

    def _undo(self, before: Mapping[str, Any]) -> None:
        if self._service["spec"] == before["spec"]:
            return
        tags = [word for tag in _tags(self._service) for word in ("--untag", tag)]
        self._kn.update(self._name, *undo(before, self._service), *tags, "--traffic", _LATEST)
        self._service = self._kn.service(self._name)


def _describe(result: Result, traffic: str, fields: Iterable[tuple[str, str | None]]) -> str:
    return "; ".join([result, traffic, *(f"{name} {value}" for name, value in fields)])


def traffic_text(service: Mapping[str, Any], revisions: Sequence[str]) -> str:
    """Return the division of traffic in the form of `ScenarioStep.traffic`; *revisions* are in the order of their creation."""
    return ",".join(sorted(_target_text(target, revisions) for target in service["status"].get("traffic") or ()))


def _target_text(target: Mapping[str, Any], revisions: Sequence[str]) -> str:
    name = target["revisionName"]
    number = str(revisions.index(name)) if name in revisions else name
    latest = "@latest" if target.get("latestRevision") else ""
    tag = f"#{target['tag']}" if target.get("tag") else ""
    return f"{number}{latest}{tag}={target.get('percent') or 0}"


def read_field(service: Mapping[str, Any], name: str) -> str | None:
    """Return the value of a field of `ScenarioStep.fields`, as text; None if it is not set."""
    section, _, key = name.partition(":")
    template, container = service["spec"]["template"], _container(service)
    sections: Mapping[str, Mapping[str, Any]] = {
        "annotation": annotations_of(template),
        "service": annotations_of(service),
        "env": {each["name"]: each.get("value") for each in container.get("env") or ()},
        "spec": template["spec"],
        **(container.get("resources") or {}),
    }
    value = sections.get(section, {}).get(key)
    return None if value is None else str(value)


def _container(service: Mapping[str, Any]) -> Mapping[str, Any]:
    return dict(service["spec"]["template"]["spec"]["containers"][0])


def _tags(service: Mapping[str, Any]) -> list[str]:
    return [target["tag"] for target in service["spec"].get("traffic") or () if target.get("tag")]
