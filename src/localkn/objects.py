"""Services and revisions as the Kubernetes objects that `kn` would be shown."""

import datetime as dt
import time
from typing import Any

from localkn.platform import Platform
from localkn.revisions import Revision
from localkn.services import Service

_VERSION = "serving.knative.dev/v1"


def service_object(platform: Platform, service: Service) -> dict[str, Any]:
    """The Service as it was described, and its status."""
    metadata = {
        **service.body["metadata"],
        "namespace": service.namespace,
        "generation": service.latest_created.generation,
        "creationTimestamp": _timestamp(next(iter(service.revisions.values())).created_at),
    }
    latest_ready = service.latest_ready
    status = {
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
    return {
        "apiVersion": _VERSION,
        "kind": "Service",
        "metadata": metadata,
        "spec": service.body["spec"],
        "status": status,
    }


def revision_object(service: Service, revision: Revision) -> dict[str, Any]:
    """A revision with the labels kn looks at, and its scale."""
    metadata = {
        **(revision.body.get("metadata") or {}),
        "name": revision.name,
        "namespace": service.namespace,
        "creationTimestamp": _timestamp(revision.created_at),
        "labels": {
            **((revision.body.get("metadata") or {}).get("labels") or {}),
            "serving.knative.dev/service": service.name,
            "serving.knative.dev/configuration": service.name,
            "serving.knative.dev/configurationGeneration": str(revision.generation),
            "serving.knative.dev/routingState": "active" if revision.autoscaler.reachable else "reserve",
        },
    }
    waiting = None if revision.was_ready else f"{len(revision.ready)} of {revision.first_scale} instances are ready"
    status = {
        "actualReplicas": len(revision.ready),
        "desiredReplicas": revision.wanted(time.monotonic()),
        "conditions": [_condition(revision.failure or waiting, failed=revision.failure is not None)],
    }
    return {
        "apiVersion": _VERSION,
        "kind": "Revision",
        "metadata": metadata,
        "spec": revision.body["spec"],
        "status": status,
    }


def _condition(problem: str | None, *, failed: bool) -> dict[str, Any]:
    if problem is None:
        return {"type": "Ready", "status": "True"}
    status, reason = ("False", "RevisionFailed") if failed else ("Unknown", "Deploying")
    return {"type": "Ready", "status": status, "reason": reason, "message": problem}


def _timestamp(monotonic: float) -> str:
    moment = dt.datetime.fromtimestamp(time.time() - time.monotonic() + monotonic, dt.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
