"""Validation of Services by the rules of Knative's webhook."""

import copy
import re
from typing import Any

import pytest
import yaml

from kubeyaml.validation import service_faults
from tests.localkn.running import SAMPLE

FULL = yaml.safe_load("""
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: rank
  namespace: prod
  labels: {networking.knative.dev/visibility: cluster-local}
  annotations: {serving.knative.dev/rollout-duration: 120s, example.com/note: x}
spec:
  template:
    metadata:
      name: rank-v1
      annotations:
        autoscaling.knative.dev/class: kpa.autoscaling.knative.dev
        autoscaling.knative.dev/metric: concurrency
        autoscaling.knative.dev/target: "20"
        autoscaling.knative.dev/target-utilization-percentage: "70"
        autoscaling.knative.dev/min-scale: "1"
        autoscaling.knative.dev/maxScale: "5"
        autoscaling.knative.dev/window: 60s
        autoscaling.knative.dev/scale-down-delay: 30s
        autoscaling.knative.dev/target-burst-capacity: "0"
        serving.knative.dev/progress-deadline: 120s
    spec:
      containerConcurrency: 0
      timeoutSeconds: 30
      responseStartTimeoutSeconds: 10
      enableServiceLinks: false
      automountServiceAccountToken: false
      serviceAccountName: recsys
      containers:
        - image: ghcr.io/acme/rank@sha256:0123
          ports: [{name: http1, containerPort: 8080}]
          env:
            - {name: LOG_LEVEL, value: info}
            - {name: TOKEN, valueFrom: {secretKeyRef: {name: recsys, key: token}}}
          envFrom: [{configMapRef: {name: recsys}}]
          resources: {requests: {cpu: "1", memory: 512Mi}, limits: {cpu: 2, memory: 1Gi}}
          readinessProbe: {httpGet: {path: /readyz}}
          livenessProbe: {httpGet: {path: /livez, port: 8080}, periodSeconds: 10}
          startupProbe: {tcpSocket: {port: 0}, periodSeconds: 1, failureThreshold: 60}
          securityContext:
            runAsNonRoot: true
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
            seccompProfile: {type: RuntimeDefault}
          volumeMounts: [{name: tmp, mountPath: /tmp}, {name: model, mountPath: /models, readOnly: true}]
      volumes:
        - {name: tmp, emptyDir: {medium: Memory, sizeLimit: 64Mi}}
        - {name: model, configMap: {name: rank-model}}
  traffic:
    - {latestRevision: true, percent: 90}
    - {revisionName: rank-v0, percent: 10, tag: old}
""")
TEMPLATE, POD, CONTAINER = "spec.template", "spec.template.spec", "spec.template.spec.containers[0]"
NOTES = f"{TEMPLATE}.metadata.annotations"


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the Service with *value* at *path*; double brackets enclose a key that contains dots."""
    service: dict[str, Any] = copy.deepcopy(FULL)
    node: Any = service
    *parents, last = re.findall(r"\[\[(.+?)\]\]|\[(\d+)\]|([^.\[\]]+)", path)
    for step in parents:
        node = node[_key(step)]
    node[_key(last)] = value
    return service


def _key(step: tuple[str, str, str]) -> str | int:
    return int(step[1]) if step[1] else step[0] or step[2]


def scaling(name: str, value: str) -> tuple[str, str, str]:
    return f"{NOTES}[[autoscaling.knative.dev/{name}]]", value, f"{NOTES}.autoscaling.knative.dev/{name}"


def test_valid_services_have_no_faults() -> None:
    """A Service that uses every common field is accepted, and so are the samples."""
    assert service_faults(FULL) == []
    for document in yaml.safe_load_all((SAMPLE / "services.yaml").read_text()):
        assert document["kind"] != "Service" or service_faults(document) == []


@pytest.mark.parametrize(
    ("path", "value", "at"),
    [
        ("metadata.name", "Rank", "metadata.name"),
        ("metadata.name", "r" * 64, "metadata.name"),
        ("metadata.name", None, "metadata.name"),
        ("metadata.labels.size", 3, "metadata.labels.size"),
        ("metadata.annotations[[autoscaling.knative.dev/min-scale]]", "1", "metadata.annotations.autoscaling.knative.dev/min-scale"),
        ("metadata.annotations[[serving.knative.dev/rollout-duration]]", "1500ms", "metadata.annotations.serving.knative.dev/rollout-duration"),
        ("specs", {}, "specs"),
        ("metadata", {}, "metadata.name"),
        ("spec", None, "spec"),
        ("spec.template", {}, "spec.template.spec"),
        (f"{TEMPLATE}.spec", {}, f"{POD}.containers"),
        ("spec.selector", {}, "spec.selector"),
        ("spec.template", [], "spec.template"),
        (f"{TEMPLATE}.metadata.name", "other-v1", f"{TEMPLATE}.metadata.name"),
        (f"{NOTES}[[networking.knative.dev/visibility]]", "x", f"{NOTES}.networking.knative.dev/visibility"),
        (f"{NOTES}[[serving.knative.dev/progress-deadline]]", "-1s", f"{NOTES}.serving.knative.dev/progress-deadline"),
        (f"{NOTES}[[queue.sidecar.serving.knative.dev/cpu-resource-request]]", "much", f"{NOTES}.queue.sidecar.serving.knative.dev/cpu-resource-request"),
        scaling("class", "vpa.autoscaling.knative.dev"),
        scaling("metric", "cpu"),
        scaling("metric-aggregation-algorithm", "quadratic"),
        scaling("min-scale", "-1"),
        scaling("min-scale", "1.5"),
        scaling("max-scale", "9999999999"),
        scaling("initial-scale", "0"),
        scaling("activation-scale", "1"),
        scaling("activation-scale", "9"),
        scaling("target", "0"),
        scaling("target", "many"),
        scaling("target", "nan"),
        scaling("target-utilization-percentage", "101"),
        scaling("target-burst-capacity", "-2"),
        scaling("target-burst-capacity", "-0.5"),
        scaling("panic-window-percentage", "0.5"),
        scaling("panic-threshold-percentage", "100"),
        scaling("window", "5s"),
        scaling("window", "61m"),
        scaling("window", "6500ms"),
        scaling("window", "60"),
        scaling("scale-down-delay", "-1s"),
        scaling("scale-to-zero-pod-retention-period", "2h"),
        (f"{NOTES}[[autoscaling.knative.dev/minScale]]", "x", None),
        (f"{NOTES}[[autoscaling.knative.dev/maxScale]]", "0.5", f"{NOTES}.autoscaling.knative.dev/max-scale"),
        (*scaling("min-scale", "6")[:2], f"{NOTES}.autoscaling.knative.dev/max-scale"),
        (f"{POD}.containerConcurrency", 1001, f"{POD}.containerConcurrency"),
        (f"{POD}.containerConcurrency", "10", f"{POD}.containerConcurrency"),
        (f"{POD}.timeoutSeconds", 601, f"{POD}.timeoutSeconds"),
        (f"{POD}.timeoutSeconds", True, f"{POD}.timeoutSeconds"),
        (f"{POD}.automountServiceAccountToken", True, f"{POD}.automountServiceAccountToken"),
        (f"{POD}.nodeSelector", {}, f"{POD}.nodeSelector"),
        (f"{POD}.terminationGracePeriodSeconds", 5, f"{POD}.terminationGracePeriodSeconds"),
        (f"{POD}.containers", [], f"{POD}.containers"),
        (f"{POD}.containers", {}, f"{POD}.containers"),
        (f"{POD}.containers", [{"image": "a"}, {"image": "b"}], f"{POD}.containers"),
        (f"{CONTAINER}.image", "", f"{CONTAINER}.image"),
        (f"{CONTAINER}.name", "queue-proxy", f"{CONTAINER}.name"),
        (f"{CONTAINER}.lifecycle", {}, f"{CONTAINER}.lifecycle"),
        (f"{CONTAINER}.ports[0].containerPort", 8012, f"{CONTAINER}.ports[0].containerPort"),
        (f"{CONTAINER}.ports[0].containerPort", 65536, f"{CONTAINER}.ports[0].containerPort"),
        (f"{CONTAINER}.ports[0].name", "web", f"{CONTAINER}.ports[0].name"),
        (f"{CONTAINER}.ports[0].protocol", "UDP", f"{CONTAINER}.ports[0].protocol"),
        (f"{CONTAINER}.ports[0].hostPort", 80, f"{CONTAINER}.ports[0].hostPort"),
        (f"{CONTAINER}.ports", [{"containerPort": 1}, {"containerPort": 2}], f"{CONTAINER}.ports"),
        (f"{CONTAINER}.env[0].name", "PORT", f"{CONTAINER}.env[0].name"),
        (f"{CONTAINER}.env[0].name", "K_REVISION", f"{CONTAINER}.env[0].name"),
        (f"{CONTAINER}.env[0].name", "", f"{CONTAINER}.env[0].name"),
        (f"{CONTAINER}.env[0].value", 5, f"{CONTAINER}.env[0].value"),
        (f"{CONTAINER}.env[1].value", "x", f"{CONTAINER}.env[1].valueFrom"),
        (f"{CONTAINER}.env[1].valueFrom", {}, f"{CONTAINER}.env[1].valueFrom"),
        (f"{CONTAINER}.env[1].valueFrom", {"fieldRef": {}}, f"{CONTAINER}.env[1].valueFrom.fieldRef"),
        (f"{CONTAINER}.env[1].valueFrom.secretKeyRef.key", "", f"{CONTAINER}.env[1].valueFrom.secretKeyRef.key"),
        (f"{CONTAINER}.envFrom[0]", {"prefix": "X"}, f"{CONTAINER}.envFrom[0]"),
        (f"{CONTAINER}.envFrom[0].secretRef", {"name": "x"}, f"{CONTAINER}.envFrom[0]"),
        (f"{CONTAINER}.resources.requests.cpu", "one", f"{CONTAINER}.resources.requests.cpu"),
        (f"{CONTAINER}.resources.requests.cpu", "3", f"{CONTAINER}.resources.requests.cpu"),
        (f"{CONTAINER}.resources.claims", [], f"{CONTAINER}.resources.claims"),
        (f"{CONTAINER}.readinessProbe.failureThreshold", 3, f"{CONTAINER}.readinessProbe.failureThreshold"),
        (f"{CONTAINER}.readinessProbe.successThreshold", 0, f"{CONTAINER}.readinessProbe.successThreshold"),
        (f"{CONTAINER}.readinessProbe.httpGet.scheme", "FTP", f"{CONTAINER}.readinessProbe.httpGet.scheme"),
        (f"{CONTAINER}.readinessProbe.httpGet.port", "x", f"{CONTAINER}.readinessProbe.httpGet.port"),
        (f"{CONTAINER}.livenessProbe", {"periodSeconds": 1}, f"{CONTAINER}.livenessProbe"),
        (f"{CONTAINER}.livenessProbe.tcpSocket", {}, f"{CONTAINER}.livenessProbe"),
        (f"{CONTAINER}.livenessProbe.timeoutSeconds", 0, f"{CONTAINER}.livenessProbe.timeoutSeconds"),
        (f"{CONTAINER}.securityContext.privileged", True, f"{CONTAINER}.securityContext.privileged"),
        (f"{CONTAINER}.securityContext.capabilities.add", ["X"], f"{CONTAINER}.securityContext.capabilities.add"),
        (f"{CONTAINER}.volumeMounts[0].mountPath", "tmp", f"{CONTAINER}.volumeMounts[0].mountPath"),
        (f"{CONTAINER}.volumeMounts[0].mountPath", "/dev", f"{CONTAINER}.volumeMounts[0].mountPath"),
        (f"{CONTAINER}.volumeMounts[0].subPathExpr", "x", f"{CONTAINER}.volumeMounts[0].subPathExpr"),
        (f"{CONTAINER}.volumeMounts[0].mountPropagation", "None", f"{CONTAINER}.volumeMounts[0].mountPropagation"),
        (f"{POD}.volumes[0].name", "scratch", f"{POD}.volumes"),
        (f"{POD}.volumes[0].hostPath", {"path": "/"}, f"{POD}.volumes[0].hostPath"),
        (f"{POD}.volumes[1]", {"name": "model"}, f"{POD}.volumes[1]"),
        ("spec.traffic[0].percent", 80, "spec.traffic"),
        ("spec.traffic[0].percent", 101, "spec.traffic[0].percent"),
        ("spec.traffic[0].revisionName", "rank-v0", "spec.traffic[0].latestRevision"),
        ("spec.traffic[0].tag", "old", "spec.traffic[0].tag"),
        ("spec.traffic[0].tag", "Old", "spec.traffic[0].tag"),
        ("spec.traffic[1].configurationName", "rank", "spec.traffic[1].configurationName"),
    ],
)  # fmt: skip
def test_every_fault_is_found_at_its_path(path: str, value: Any, at: str | None) -> None:
    """A fault that the webhook refuses is reported with the path of its field; an overruled field has no fault."""
    faults = service_faults(changed(path, value))
    assert [fault[0] for fault in faults][:1] == ([at] if at else [])


def test_all_faults_are_reported_together() -> None:
    """One validation reports every fault of a Service."""
    service = changed(f"{POD}.timeoutSeconds", -1)
    service["spec"]["template"]["spec"]["containers"][0]["stdin"] = True
    service["metadata"]["annotations"]["serving.knative.dev/rollout-duration"] = "soon"
    assert sorted(path for path, _ in service_faults(service)) == [
        "metadata.annotations.serving.knative.dev/rollout-duration",
        f"{CONTAINER}.stdin",
        f"{POD}.timeoutSeconds",
    ]


@pytest.mark.parametrize(
    "annotations",
    [
        {"target-burst-capacity": "-1", "max-scale": "0", "min-scale": "7"},
        {"class": "hpa.autoscaling.knative.dev", "metric": "cpu"},
        {"class": "mine.example.com", "metric": "queue"},
        {"metric-aggregation-algorithm": "quadratic"},
        {"scale-to-zero-pod-retention-period": "1m0.5s", "scale-down-delay": "0", "window": "1h"},
        {"something-new": "1"},
    ],
)
def test_scaling_settings_that_knative_accepts_are_accepted(annotations: dict[str, str]) -> None:
    """The rules are not stricter than the webhook's."""
    service = copy.deepcopy(FULL)
    given = {f"autoscaling.knative.dev/{name}": value for name, value in annotations.items()}
    service["spec"]["template"]["metadata"]["annotations"] = given
    assert service_faults(service) == []
