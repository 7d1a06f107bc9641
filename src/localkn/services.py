"""
A Knative Service: its revisions, and the share of the traffic that each gets.

Decisions only; the platform carries them out. Times are seconds of one clock that never falls.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubeyaml.edits import LATEST
from kubeyaml.templates import Template
from localkn.errors import RefusedError
from localkn.revisions import Revision


@dataclass(frozen=True, slots=True)
class TrafficTarget:
    """A share of the traffic, a tag, or both, that lead to a revision."""

    revision: str
    percent: int = 0
    tag: str = ""
    latest: bool = False


@dataclass(eq=False)
class KnativeService:
    """
    One Service with all its revisions. `routed` holds the targets that the ingress has.

    Args:
        fixed_scale: Number of instances of every revision at any load; None to scale with the load.
        built_in: Whether the platform itself added the Service.
    """

    name: str
    namespace: str
    fixed_scale: int | None = None
    built_in: bool = False
    body: Mapping[str, Any] = field(default_factory=dict)
    revisions: dict[str, Revision] = field(default_factory=dict)
    routed: Sequence[TrafficTarget] = ()

    @property
    def host(self) -> str:
        """The name inside a cluster that its URL starts with."""
        return f"{self.name}.{self.namespace}"

    @property
    def latest_created(self) -> Revision:
        """The newest revision, ready or not."""
        return next(reversed(self.revisions.values()))

    @property
    def latest_ready(self) -> Revision | None:
        """The newest revision that has been ready."""
        return next((r for r in reversed(self.revisions.values()) if r.was_ready), None)

    def apply(self, body: Mapping[str, Any], *, now: float) -> Revision | None:
        """
        Apply a changed description.

        Returns:
            The new revision if the template changed, else None.

        Raises:
            RefusedError: Its template has a name that is taken, or traffic names a revision that does not exist.
        """
        template = body["spec"]["template"]
        changed = not self.revisions or template != self.latest_created.body
        generation = self.latest_created.generation + changed if self.revisions else 1
        name = (template.get("metadata") or {}).get("name") or f"{self.name}-{generation:05}"
        if changed and name in self.revisions:
            raise RefusedError(f"spec.template.metadata.name: revision {name} exists with another template")
        known = {*self.revisions, name}
        for target in body["spec"].get("traffic") or ():
            if target.get("revisionName") and target["revisionName"] not in known:
                raise RefusedError(f"spec.traffic: Service {self.name} has no revision {target['revisionName']}")
        self.body = body
        if not changed:
            return None
        revision = Revision(
            name, generation, template, Template.from_body(template), created_at=now, fixed_scale=self.fixed_scale
        )
        self.revisions[name] = revision
        return revision

    def targets(self) -> Sequence[TrafficTarget]:
        """Resolve `spec.traffic`; nothing while no revision has been ready."""
        latest = self.latest_ready
        if latest is None:
            return ()
        return [
            TrafficTarget(
                revision=entry.get("revisionName") or latest.name,
                percent=entry.get("percent") or 0,
                tag=entry.get("tag") or "",
                latest=not entry.get("revisionName"),
            )
            for entry in self.body["spec"].get("traffic") or LATEST
        ]

    def step(self, now: float, *, serving: Callable[[str], bool]) -> None:
        """
        Advance to *now*: revisions become ready or fail, traffic moves to where it is served.

        Args:
            now: The time.
            serving: Whether the ingress has a healthy endpoint of the revision of this name. Until it has one of
                every target, traffic stays where it is.
        """
        for revision in self.revisions.values():
            revision.settle(now)
        targets = self.targets()
        if targets and all(serving(target.revision) for target in targets):
            self.routed = targets
        reached = {target.revision for target in (*targets, *self.routed)}
        for revision in self.revisions.values():
            waiting = revision.pending and revision is self.latest_created
            revision.reach(reachable=waiting or revision.name in reached, now=now)

    def problem(self, *, traffic_only: bool = False) -> str | None:
        """
        Return why the Service is not as its body describes; None if it is.

        Args:
            traffic_only: Consider only the revisions that get traffic.
        """
        newest, targets = self.latest_created, self.targets()
        if newest.failure and not traffic_only:
            return f"revision {newest.name} failed: {newest.failure}"
        if newest.pending and not traffic_only:
            return f"revision {newest.name} is not ready yet"
        if self.routed == targets:
            return None
        awaited = [self.revisions[target.revision] for target in targets if target not in self.routed]
        names = ", ".join(r.name + (f" ({r.failure})" if r.failure else "") for r in awaited)
        return f"traffic waits for {names or 'the ingress'}"

    def is_settled(self, *, traffic_only: bool = False) -> bool:
        """Tell whether the Service has reached its final state: as described, or failed."""
        awaited = [self.revisions[target.revision] for target in self.targets()]
        failed = any(revision.failure for revision in (awaited if traffic_only else [*awaited, self.latest_created]))
        return failed or self.problem(traffic_only=traffic_only) is None
