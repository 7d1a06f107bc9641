"""What a running platform says of itself: one JSON object, or a table."""

from collections.abc import Mapping
from typing import Any

from localkn.platform import Platform
from localkn.revisions import Revision
from localkn.services import Service


async def snapshot(platform: Platform, *, now: float) -> dict[str, Any]:
    """Describe every Service, revision and instance as plain data."""
    latencies = await platform.ingress.latencies()
    return {
        "url": platform.world.url,
        "direct": platform.world.direct,
        "notes": list(platform.world.notes),
        "services": {s.name: _service(s, platform, now=now, latencies=latencies) for s in platform.services.values()},
    }


def _service(
    service: Service, platform: Platform, *, now: float, latencies: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    latest_ready = service.latest_ready
    return {
        "namespace": service.namespace,
        "url": platform.url_of(service),
        "public": service.name == platform.world.public,
        "ready": service.problem() is None,
        "problem": service.problem(),
        "latest_created": service.latest_created.name,
        "latest_ready": latest_ready.name if latest_ready else None,
        "revisions": [
            _revision(r, service, now=now) | dict(latencies.get(r.name, {})) for r in service.revisions.values()
        ],
    }


def _revision(revision: Revision, service: Service, *, now: float) -> dict[str, Any]:
    settings, decision = revision.template.settings, revision.decision
    return {
        "name": revision.name,
        "ready": len(revision.ready),
        "desired": revision.wanted(now),
        "traffic_percent": service.percent(revision.name),
        "tags": [target.tag for target in service.routed if target.revision == revision.name and target.tag],
        "was_ready": revision.was_ready,
        "failure": revision.failure,
        "concurrency": round(revision.concurrency.average(int(now)), 3),
        "rps": round(revision.arrivals.average(int(now)), 3),
        "metric": settings.metric,
        "target": settings.target,
        "stable": decision.stable,
        "panic": decision.panic,
        "panicking": decision.panicking,
        "excess_burst_capacity": decision.excess_burst_capacity,
        "instances": [
            {
                "name": instance.name,
                "state": instance.state.value,
                "port": instance.port,
                "pid": instance.process.pid if instance.process else None,
            }
            for instance in revision.instances
        ],
    }
