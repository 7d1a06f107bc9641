"""
The fields of every kind in the manifests, as its API defines them.

The schemas are transcribed from the CRDs of knative/serving (config/core/300-resources) and knative/eventing
(config/core/resources) and from the Kubernetes API reference, as far as the manifests need them. A field that is
missing here is refused, so that its author looks it up first.
"""

from collections.abc import Iterator
from typing import Any

from kubeyaml.validation import service_faults
from tests.knative.objects import Object, is_knative
from tools.cluster.wanted import POD_FLAGS

ANY = object()

_REF = {"apiVersion": str, "kind": str, "name": str, "namespace": str}
_DESTINATION = {"ref": _REF, "uri": str, "CACerts": str, "audience": str}
_DELIVERY = {
    "retry": int, "backoffPolicy": str, "backoffDelay": str, "timeout": str, "retryAfterMax": str, "format": str,
    "deadLetterSink": _DESTINATION,
}  # fmt: skip
_LABELS = {"*": str}
_SELECTOR = {"matchLabels": _LABELS, "matchExpressions": [{"key": str, "operator": str, "values": [str]}]}
_FILTER = {"exact": _LABELS, "prefix": _LABELS, "suffix": _LABELS, "all": [ANY], "any": [ANY], "not": ANY, "cesql": str}
_PORT = {"name": str, "port": ANY, "targetPort": ANY, "protocol": str}
_PEER = {"namespaceSelector": _SELECTOR, "podSelector": _SELECTOR, "ipBlock": ANY}
_PROBE = {
    "exec": {"command": [str]}, "tcpSocket": {"port": ANY}, "httpGet": ANY, "periodSeconds": int, "timeoutSeconds": int,
    "failureThreshold": int, "initialDelaySeconds": int,
}  # fmt: skip
_SECURITY = {
    "runAsNonRoot": bool, "runAsUser": int, "runAsGroup": int, "seccompProfile": {"type": str},
    "allowPrivilegeEscalation": bool, "readOnlyRootFilesystem": bool, "capabilities": {"drop": [str], "add": [str]},
}  # fmt: skip
_KEY = {"name": str, "key": str, "optional": bool}
_CONTAINER = {
    "name": str, "image": str, "command": [str], "args": [str], "imagePullPolicy": str,
    "env": [{"name": str, "value": str, "valueFrom": {"secretKeyRef": _KEY, "configMapKeyRef": _KEY}}],
    "ports": [{"name": str, "containerPort": int, "protocol": str}],
    "readinessProbe": _PROBE, "livenessProbe": _PROBE,
    "resources": {"requests": {"*": str}, "limits": {"*": str}},
    "securityContext": _SECURITY,
    "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool, "subPath": str}],
}  # fmt: skip
_POD = {
    "metadata": {"labels": _LABELS, "annotations": _LABELS},
    "spec": {
        "containers": [_CONTAINER],
        "securityContext": {**_SECURITY, "fsGroup": int},
        "serviceAccountName": str, "automountServiceAccountToken": bool, "enableServiceLinks": bool,
        "restartPolicy": str, "terminationGracePeriodSeconds": int,
        "volumes": [{
            "name": str, "emptyDir": {"medium": str, "sizeLimit": str}, "configMap": ANY, "secret": ANY,
            "persistentVolumeClaim": {"claimName": str, "readOnly": bool},
            "image": {"reference": str, "pullPolicy": str},
        }],
    },
}  # fmt: skip

SCHEMAS: dict[tuple[str, str], Any] = {
    ("v1", "Namespace"): {},
    ("v1", "ServiceAccount"): {"automountServiceAccountToken": bool},
    ("v1", "ConfigMap"): {"data": {"*": str}, "binaryData": {"*": str}, "immutable": bool},
    ("v1", "Secret"): {"data": {"*": str}, "stringData": {"*": str}, "type": str, "immutable": bool},
    ("v1", "Service"): {"spec": {"selector": _LABELS, "ports": [_PORT], "clusterIP": str, "type": str, "publishNotReadyAddresses": bool}},
    ("apps/v1", "Deployment"): {
        "spec": {"replicas": int, "selector": _SELECTOR, "template": _POD, "strategy": {"type": str}}
    },
    ("apps/v1", "StatefulSet"): {
        "spec": {"serviceName": str, "replicas": int, "selector": _SELECTOR, "template": _POD, "volumeClaimTemplates": [ANY]}
    },
    ("batch/v1", "CronJob"): {
        "spec": {
            "schedule": str, "concurrencyPolicy": str, "successfulJobsHistoryLimit": int, "failedJobsHistoryLimit": int,
            "jobTemplate": {
                "metadata": {"labels": _LABELS},
                "spec": {"backoffLimit": int, "activeDeadlineSeconds": int, "template": _POD},
            },
        }
    },
    ("rbac.authorization.k8s.io/v1", "Role"): {
        "rules": [{"apiGroups": [str], "resources": [str], "resourceNames": [str], "verbs": [str]}]
    },
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): {
        "roleRef": {"apiGroup": str, "kind": str, "name": str},
        "subjects": [{"kind": str, "name": str, "namespace": str}],
    },
    ("v1", "ResourceQuota"): {"spec": {"hard": {"*": str}}},
    ("v1", "LimitRange"): {"spec": {"limits": [{"type": str, "default": {"*": str}, "defaultRequest": {"*": str}}]}},
    ("policy/v1", "PodDisruptionBudget"): {"spec": {"maxUnavailable": ANY, "minAvailable": ANY, "selector": _SELECTOR}},
    ("networking.k8s.io/v1", "NetworkPolicy"): {
        "spec": {
            "podSelector": _SELECTOR,
            "policyTypes": [str],
            "ingress": [{"from": [_PEER], "ports": [{"port": ANY, "protocol": str}]}],
            "egress": [{"to": [_PEER], "ports": [{"port": ANY, "protocol": str}]}],
        }
    },
    ("serving.knative.dev/v1beta1", "DomainMapping"): {"spec": {"ref": _REF, "tls": {"secretName": str}}},
    ("eventing.knative.dev/v1", "Broker"): {"spec": {"config": _REF, "delivery": _DELIVERY}},
    ("eventing.knative.dev/v1", "Trigger"): {
        "spec": {"broker": str, "brokerRef": _REF, "filters": [_FILTER], "subscriber": _DESTINATION, "delivery": _DELIVERY}
    },
    ("eventing.knative.dev/v1beta2", "EventType"): {
        "spec": {"type": str, "source": str, "schema": str, "schemaData": str, "description": str, "reference": _REF}
    },
    ("eventing.knative.dev/v1alpha1", "EventPolicy"): {
        "spec": {
            "to": [{"ref": _REF, "selector": {**_SELECTOR, "apiVersion": str, "kind": str}}],
            "from": [{"ref": _REF, "sub": str}],
            "filters": [_FILTER],
        }
    },
    ("flows.knative.dev/v1", "Sequence"): {
        "spec": {
            "channelTemplate": {"apiVersion": str, "kind": str, "spec": ANY},
            "steps": [{**_DESTINATION, "delivery": _DELIVERY}],
            "reply": _DESTINATION,
        }
    },
    ("sources.knative.dev/v1", "SinkBinding"): {
        "spec": {"subject": {**_REF, "selector": _SELECTOR}, "sink": _DESTINATION, "ceOverrides": {"extensions": _LABELS}}
    },
}  # fmt: skip
_METADATA = {"name": str, "namespace": str, "labels": _LABELS, "annotations": _LABELS}


def faults(body: Object) -> Iterator[str]:
    """Yield every field of *body* that its kind does not have, or that has another type."""
    place = f"{body['kind']} {body['metadata']['name']}"
    if is_knative(body):
        pod = body["spec"]["template"]["spec"]
        plain = {
            key: value for key, value in pod.items() if key not in POD_FLAGS
        }  # rules.py compares them with the flags
        plain["volumes"] = [v for v in pod.get("volumes") or () if "persistentVolumeClaim" not in v]
        if len(plain["volumes"]) < len(pod.get("volumes") or ()):
            return
        template = {**body["spec"]["template"], "spec": plain}
        yield from (
            f"{place}: {p}: {t}" for p, t in service_faults({**body, "spec": {**body["spec"], "template": template}})
        )
        return
    schema = SCHEMAS.get((body["apiVersion"], body["kind"]))
    if schema is None:
        yield f"{place}: {body['apiVersion']} is not among the schemas"
        return
    whole = {"apiVersion": str, "kind": str, "metadata": _METADATA, **schema}
    yield from (f"{place}: {fault}" for fault in _faults(body, whole, path=""))


def _faults(value: Any, schema: Any, *, path: str) -> Iterator[str]:
    if schema is ANY:
        return
    if isinstance(schema, dict) and isinstance(value, dict):
        for key, item in value.items():
            at = f"{path}.{key}" if path else key
            if key in schema or "*" in schema:
                yield from _faults(item, schema.get(key, schema.get("*")), path=at)
            else:
                yield f"{at}: is not a known field"
    elif isinstance(schema, list) and isinstance(value, list):
        for item in value:
            yield from _faults(item, schema[0], path=path)
    elif not isinstance(schema, type) or type(value) is not schema:
        yield f"{path}: {value!r} is not a valid {getattr(schema, '__name__', type(schema).__name__)}"
