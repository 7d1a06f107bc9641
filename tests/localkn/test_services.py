"""The traffic of a Service between its revisions."""

import copy
from types import SimpleNamespace
from typing import Any, cast

import pytest

from localkn.errors import RefusedError
from localkn.platform import Platform
from localkn.services import KnativeService, TrafficTarget
from localkn.views import service_object
from tests.localkn.test_revisions import add


def body(image: str, *traffic: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    metadata = {"name": name} if name else {}
    template = {"metadata": metadata, "spec": {"containers": [{"image": image}]}}
    return {"metadata": {"name": "s"}, "spec": {"template": template, "traffic": list(traffic)}}


def step(service: KnativeService, now: float = 0.0, *, serving: set[str] | None = None) -> None:
    """Step the Service; by default the ingress serves every revision that has a ready instance."""
    served = {name for name, r in service.revisions.items() if r.ready} if serving is None else serving
    service.step(now, serving=lambda name: name in served)


def updated_service(*images: str) -> KnativeService:
    """Return a Service that was updated to each image in turn, with every revision ready."""
    service = KnativeService("s", "default")
    for image in images:
        made = service.apply(body(image), now=0.0)
        assert made is not None
        add(made)
        step(service)
        step(service)
    return service


def routed(service: KnativeService) -> list[tuple[str, int]]:
    return [(target.revision, target.percent) for target in service.routed]


def test_a_changed_template_makes_a_revision() -> None:
    """Generations increase, and an unchanged template makes no revision."""
    service = updated_service("a", "b")
    assert list(service.revisions) == ["s-00001", "s-00002"]
    assert service.apply(body("b"), now=1.0) is None
    assert service.apply(body("b", name="s-named"), now=1.0) is not None
    assert service.latest_created.name == "s-named"
    assert service.apply(body("d"), now=1.0) is not None
    assert service.latest_created.name == "s-00004"
    with pytest.raises(RefusedError, match="s-named exists with another template"):
        service.apply(body("e", name="s-named"), now=1.0)


def test_traffic_moves_when_the_new_revision_serves() -> None:
    """Traffic moves once the ingress confirms an endpoint, not when the revision or its first instance is ready."""
    service = updated_service("a")
    assert routed(service) == [("s-00001", 100)]
    made = service.apply(body("b"), now=1.0)
    assert made is not None
    step(service)
    assert service.problem() == "revision s-00002 is not ready yet"
    add(made)
    step(service, serving={"s-00001"})
    step(service, serving={"s-00001"})
    assert routed(service) == [("s-00001", 100)]
    assert service.problem() == "traffic waits for s-00002"
    assert not service.is_settled()
    step(service)
    assert routed(service) == [("s-00002", 100)]
    assert service.is_settled()
    assert service.problem() is None
    step(service)
    assert not service.revisions["s-00001"].autoscaler.reachable
    assert service.revisions["s-00002"].autoscaler.reachable


def test_an_object_has_the_kind_of_its_manifest() -> None:
    """`kubectl` and programs that read kn's output find the kind Service."""
    platform = cast("Platform", SimpleNamespace(url_of=lambda *_, **__: "http://s"))
    assert service_object(platform, updated_service("a"))["kind"] == "Service"


def test_a_failed_revision_gets_no_traffic() -> None:
    """The earlier revision keeps the traffic, the Service reports the failure, and its traffic can still be changed."""
    service = updated_service("a", "b")
    service.apply(body("broken"), now=1.0)
    step(service, 100.0)
    step(service, 100.0)
    assert routed(service) == [("s-00002", 100)]
    assert service.problem() == "revision s-00003 failed: not ready within 60 s"
    assert service.is_settled()
    service.apply(body("broken", {"revisionName": "s-00001", "percent": 100}), now=101.0)
    assert not service.is_settled(traffic_only=True)
    step(service, 101.0)
    assert routed(service) == [("s-00001", 100)]
    assert service.problem(traffic_only=True) is None
    assert service.is_settled(traffic_only=True)


def test_traffic_can_be_pinned_split_and_tagged() -> None:
    """Percentages, tags and the latest revision are routed in the order of the manifest."""
    service = updated_service("a", "b")
    latest = {"latestRevision": True, "percent": 10, "tag": "next"}
    service.apply(body("b", {"revisionName": "s-00001", "percent": 90}, latest), now=1.0)
    step(service)
    assert service.routed == [
        TrafficTarget("s-00001", percent=90),
        TrafficTarget("s-00002", percent=10, tag="next", latest=True),
    ]


def test_a_tag_keeps_a_revision_without_traffic() -> None:
    """A tagged revision stays reachable."""
    service = updated_service("a", "b")
    service.apply(
        body("b", {"latestRevision": True, "percent": 100}, {"revisionName": "s-00001", "tag": "old"}), now=1.0
    )
    step(service)
    assert service.revisions["s-00001"].autoscaler.reachable


def test_a_rollback_waits_for_an_instance() -> None:
    """Traffic stays with the present revision until the earlier one has an instance again."""
    service = updated_service("a", "b")
    service.revisions["s-00001"].instances.clear()
    service.apply(body("b", {"revisionName": "s-00001", "percent": 100}), now=1.0)
    step(service, 1.0)
    assert routed(service) == [("s-00002", 100)]
    assert service.revisions["s-00001"].plan(1.0).start == 1
    add(service.revisions["s-00001"])
    step(service, 2.0)
    assert routed(service) == [("s-00001", 100)]


def test_traffic_pinned_to_a_failed_revision_is_reported() -> None:
    """The traffic stays where it is, and the Service counts as settled."""
    service = updated_service("a")
    service.apply(body("broken"), now=0.0)
    step(service, 100.0)
    service.apply(body("broken", {"revisionName": "s-00002", "percent": 100}), now=100.0)
    step(service, 101.0)
    assert routed(service) == [("s-00001", 100)]
    assert service.problem(traffic_only=True) == "traffic waits for s-00002 (not ready within 60 s)"
    assert service.is_settled(traffic_only=True)


def test_an_unknown_revision_is_refused() -> None:
    """Traffic cannot name an unknown revision, but may name the one that the same update makes."""
    service = updated_service("a")
    unknown = {"revisionName": "s-00009", "percent": 100}
    with pytest.raises(RefusedError, match="has no revision s-00009"):
        service.apply(body("a", unknown), now=1.0)
    assert service.apply(body("b", unknown | {"revisionName": "s-00002"}), now=1.0) is not None


def test_applying_does_not_change_the_description() -> None:
    """The description that was applied can be applied again."""
    described = body("a")
    kept = copy.deepcopy(described)
    KnativeService("s", "default").apply(described, now=0.0)
    assert described == kept
