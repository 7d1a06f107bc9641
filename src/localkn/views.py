"""A running platform as plain data: its status, and the Kubernetes objects for `kn`."""

import datetime as dt
import time
from typing import Any

from localkn.activator import Door
from localkn.platform import Platform
from localkn.revisions import Revision
from localkn.services import KnativeService


async def status(platform: Platform) -> dict[str, Any]:
    """Describe every Service, revision and instance."""
    latencies = await platform.ingress.latencies()
    shown = {
        service.name: {
            "url": platform.url_of(service),
            "address": platform.address_of(service),
            "namespace": service.namespace,
            "public": service.name == platform.public,
            "ready": service.problem() is None,
            "problem": service.problem(),
            "revisions": [
                _revision(r, service, platform.door(r)) | latencies.get(r.name, {}) for r in service.revisions.values()
            ],
        }
        for service in platform.services.values()
    }
    built_in = {service.name: shown.pop(service.name) for service in platform.services.values() if service.built_in}
    about = {
        "url": platform.url,
        "dashboard": platform.dashboard,
        "direct": platform.direct,
        "notes": list(platform.notes),
    }
    return {**about, "services": shown, "brokers": platform.broker_urls(), "built_in": built_in}


def _revision(revision: Revision, service: KnativeService, door: Door | None) -> dict[str, Any]:
    now, decision = time.monotonic(), revision.decision
    return {
        "name": revision.name,
        "ready": len(revision.ready),
        "desired": revision.wanted(now),
        "decided": decision.desired,
        "traffic_percent": sum(target.percent for target in service.routed if target.revision == revision.name),
        "tags": [target.tag for target in service.routed if target.revision == revision.name and target.tag],
        "failure": revision.failure,
        "concurrency": round(revision.concurrency.average(int(now)), 3),
        "rps": round(revision.arrivals.average(int(now)), 3),
        "metric": revision.settings.metric,
        "target": revision.settings.target,
        "stable": decision.stable,
        "panic": decision.panic,
        "panicking": decision.panicking,
        "excess_burst_capacity": decision.excess_burst_capacity,
        "waiting": door.waiting if door else 0,
        "cold_start_s": door.cold_start_s if door else None,
        "instances": [
            {
                "name": i.name,
                "state": i.state.value,
                "port": i.port,
                "pid": i.process.pid if i.process else None,
                "metrics_port": i.metrics_port,
            }
            for i in revision.instances
        ],
    }


def service_object(platform: Platform, service: KnativeService) -> dict[str, Any]:
    """Return the Service as it was described, with its status."""
    first, latest_ready = next(iter(service.revisions.values())), service.latest_ready
    generation = {"namespace": service.namespace, "generation": service.latest_created.generation}
    shown = {
        "url": platform.url_of(service),
        "address": {"url": f"http://{service.host}.svc.cluster.local"},
        "latestCreatedRevisionName": service.latest_created.name,
        "latestReadyRevisionName": latest_ready.name if latest_ready else None,
        "conditions": [_condition(service.problem(), failed=service.is_settled())],
        "traffic": [
            {"revisionName": target.revision, "percent": target.percent, "latestRevision": target.latest}
            | ({"tag": target.tag, "url": platform.url_of(service, tag=target.tag)} if target.tag else {})
            for target in service.routed
        ],
    }
    metadata = service.body["metadata"] | generation | _created(first)
    return _object("Service", metadata, service.body["spec"], shown)


def revision_object(service: KnativeService, revision: Revision) -> dict[str, Any]:
    """Return a revision with the labels that kn reads, and its scale."""
    described = revision.body.get("metadata") or {}
    labels = {
        "serving.knative.dev/service": service.name,
        "serving.knative.dev/configuration": service.name,
        "serving.knative.dev/configurationGeneration": str(revision.generation),
        "serving.knative.dev/routingState": "active" if revision.autoscaler.reachable else "reserve",
    }
    names = {"name": revision.name, "namespace": service.namespace, "labels": (described.get("labels") or {}) | labels}
    waiting = None if revision.was_ready else f"{len(revision.ready)} of {revision.first_scale} instances are ready"
    shown = {
        "actualReplicas": len(revision.ready),
        "desiredReplicas": revision.wanted(time.monotonic()),
        "conditions": [_condition(revision.failure or waiting, failed=revision.failure is not None)],
    }
    metadata = described | names | _created(revision)
    return _object("Revision", metadata, revision.body["spec"], shown)


def _object(kind: str, metadata: Any, spec: Any, shown: Any) -> dict[str, Any]:
    return {"apiVersion": "serving.knative.dev/v1", "kind": kind, "metadata": metadata, "spec": spec, "status": shown}


def _condition(problem: str | None, *, failed: bool) -> dict[str, Any]:
    if problem is None:
        return {"type": "Ready", "status": "True"}
    state, reason = ("False", "RevisionFailed") if failed else ("Unknown", "Deploying")
    return {"type": "Ready", "status": state, "reason": reason, "message": problem}


def _created(revision: Revision) -> dict[str, str]:
    moment = dt.datetime.fromtimestamp(time.time() - time.monotonic() + revision.created_at, dt.UTC)
    return {"creationTimestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ")}
