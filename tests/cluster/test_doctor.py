"""`./run.sh cluster doctor` on recorded clusters: a healthy one, and one for each fault."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.recorded import Objects, RecordedCluster, changed, filled, healthy, kubectl, made, without
from tests.knative.command_lines import parse
from tests.running import ROOT
from tools.cli.verbs import main
from tools.cluster.findings import Finding
from tools.cluster.verb import diagnose
from tools.cluster.wanted import WantedObjects

pytestmark = pytest.mark.may_block

DEV, PROD = ROOT / "knative/overlays/dev", ROOT / "knative/overlays/prod"
KSVC, UNREADY = "services.serving.knative.dev", [{"type": "Ready", "status": "False", "message": "no endpoint"}]


@pytest.fixture(scope="module")
def prod() -> WantedObjects:
    return filled(WantedObjects(PROD))


@pytest.fixture(scope="module")
def dev() -> WantedObjects:
    return WantedObjects(DEV)


def findings(objects: Objects, wanted: WantedObjects, level: str) -> list[Finding]:
    return [each for each in diagnose(RecordedCluster(objects), wanted) if each.level == level]


@pytest.mark.parametrize("overlay", ["dev", "gpu", "kafka", "prod", "sequence", "small"])
def test_a_healthy_cluster_has_no_fault(overlay):
    """On a cluster that has all that an overlay needs, the doctor finds no fault."""
    wanted = filled(WantedObjects(ROOT / "knative/overlays" / overlay))
    assert findings(healthy(wanted), wanted, "fault") == []
    assert len(findings(healthy(wanted), wanted, "ok")) > 10


def data(**entries: str | None) -> Callable[[dict[str, Any]], None]:
    """Return a change of the entries of a ConfigMap or Secret; None removes the entry."""

    def change(body: dict[str, Any]) -> None:
        given = {name.replace("_", "-"): value for name, value in entries.items()}
        body["data"] = {name: value for name, value in {**body["data"], **given}.items() if value is not None}

    return change


def put(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda body: body.update(fields)


def label(**labels: str) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["metadata"]["labels"].update({k.replace("__", "/"): v for k, v in labels.items()})


def version(text: str) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["metadata"]["labels"].update({"app.kubernetes.io/version": text})


FAULTS: dict[str, tuple[Callable[[Objects], Objects], str, str]] = {
    "no serving": (lambda o: without(o, "namespaces", "knative-serving"), "Serving is not installed", "install"),
    "old serving": (
        lambda o: changed(o, "namespaces", "knative-serving", version("1.15.3")), "Serving is 1.15.3", "1.16 or newer",
    ),
    "old eventing": (
        lambda o: changed(o, "namespaces", "knative-eventing", version("v1.9")), "Eventing is v1.9", "1.16 or newer",
    ),
    "no autoscaler": (
        lambda o: changed(o, "deployments.apps", "autoscaler", put(status={})), "no pod of autoscaler", "get pods",
    ),
    "other ingress class": (
        lambda o: changed(o, "configmaps", "config-network", data(ingress_class=None)),
        "istio-ingressgateway in istio-system is not available", "ingress-class in config-network",
    ),
    "gateway down": (
        lambda o: changed(o, "deployments.apps", "3scale-kourier-gateway", put(status={"availableReplicas": 0})),
        "3scale-kourier-gateway in kourier-system is not available", "network layer",
    ),
    "one gateway": (
        lambda o: changed(o, "deployments.apps", "3scale-kourier-gateway", put(spec={"replicas": 1})),
        "has one pod", 'hpa 3scale-kourier-gateway --namespace kourier-system --type merge --patch \'{"spec":{"minReplicas":2}}\'',
    ),
    "no claim": (
        lambda o: without(o, "clusterdomainclaims.networking.internal.knative.dev"),
        "no ClusterDomainClaim recommend.shop.test", "domain-claim.yaml",
    ),
    "another's claim": (
        lambda o: changed(
            o, "clusterdomainclaims.networking.internal.knative.dev", "recommend.shop.test",
            put(spec={"namespace": "other"}),
        ),
        "belongs to the namespace other", "ClusterDomainClaim",
    ),
    "no metrics": (
        lambda o: changed(o, "configmaps", "config-observability", data(request_metrics_protocol=None)),
        "request-metrics-protocol is not set", "config-observability.yaml",
    ),
    "no pod monitors": (
        lambda o: without(o, "podmonitors.monitoring.coreos.com", "recsys-functions"),
        "no PodMonitor of the pipeline in recsys", "-k knative/monitoring",
    ),
    "unselected monitors": (
        lambda o: changed(o, "podmonitors.monitoring.coreos.com", "recsys-functions", label(release="other")),
        "no Prometheus selects", "podMonitorSelector",
    ),
    "unselected namespace": (
        lambda o: changed(o, "namespaces", "recsys", label(team="other")), "no Prometheus selects", "NamespaceSelector",
    ),
    "no tls": (
        lambda o: changed(o, "configmaps", "config-network", data(external_domain_tls="Disabled")),
        "external-domain-tls is not enabled", "config-network.yaml",
    ),
    "no issuer": (
        lambda o: without(o, "clusterissuers.cert-manager.io"), "letsencrypt is not ready: it does not exist", "issuer.yaml",
    ),
    "issuer not ready": (
        lambda o: changed(o, "clusterissuers.cert-manager.io", "letsencrypt", put(status={"conditions": UNREADY})),
        "letsencrypt is not ready: no endpoint", "issuer.yaml",
    ),
    "no issuer named": (
        lambda o: changed(o, "configmaps", "config-certmanager", data(issuerRef=None)), "names no issuer", "config-certmanager",
    ),
    "no secret": (
        lambda o: without(o, "secrets", "recommend-tokens"), "recommend needs the Secret recommend-tokens", "create it in recsys",
    ),
    "no entry": (
        lambda o: changed(o, "secrets", "feature-store", put(data={"pass": "eA=="})), "the entry password", "add that entry",
    ),
    "service not ready": (
        lambda o: changed(o, KSVC, "extract-features", put(status={"conditions": UNREADY})),
        "extract-features is not ready: no endpoint", "kubectl logs --namespace recsys",
    ),
    "trigger not ready": (
        lambda o: changed(o, "triggers.eventing.knative.dev", "interactions", put(status={})),
        "Trigger interactions is not ready: no condition yet", "describe trigger interactions --namespace recsys",
    ),
    "trigger without a Service": (
        lambda o: changed(
            o, "triggers.eventing.knative.dev", "interactions",
            put(status={"conditions": [{"type": "Ready", "status": "False", "message": "address not set for Kind = Service"}]}),
        ),
        "Trigger interactions is not ready: address not set", "kubectl annotate trigger interactions --namespace recsys",
    ),
    "mapping not ready": (
        lambda o: changed(
            o, "domainmappings.serving.knative.dev", "recommend.shop.test", put(status={"conditions": UNREADY})
        ),
        "DomainMapping recommend.shop.test is not ready", "describe domainmapping",
    ),
    "certificate not ordered": (
        lambda o: changed(o, "certificates.networking.internal.knative.dev", "recommend.shop.test", put(status={})),
        "has not ordered the certificate recommend.shop.test", "restart deployment controller --namespace knative-serving",
    ),
    "waits for a certificate": (
        lambda o: changed(o, KSVC, "recommend", put(status={"conditions": [{**UNREADY[0], "reason": "CertificateNotReady"}]})),
        "recommend is not ready: no endpoint", "describe certificates.networking.internal.knative.dev --namespace recsys",
    ),
    "certificate not ready": (
        lambda o: changed(o, "certificates.cert-manager.io", "recommend.shop.test", put(status={"conditions": UNREADY})),
        "certificate recommend.shop.test is not ready: no endpoint",
        "describe certificates.cert-manager.io recommend.shop.test --namespace recsys",
    ),
    "old certificate": (
        lambda o: changed(
            o, "certificates.cert-manager.io", "recommend.shop.test",
            lambda body: body["status"].update(notAfter="2026-01-01T00:00:00Z"),
        ),
        "expires at 2026-01-01", "renewed",
    ),
    "one node": (
        lambda o: changed(o, "pods", "rank-items-node-b", put(spec={"nodeName": "node-a"})),
        "all pods of rank-items run on node-a", "default-affinity-type",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_alone_and_says_what_to_do(prod, name):
    """A cluster with one fault has one finding of that level, which names the object and the remedy."""
    spoil, seen, todo = FAULTS[name]
    (found,) = findings(spoil(healthy(prod)), prod, "fault")
    assert seen in found.seen
    assert todo in found.todo


def test_placeholders_of_production_are_faults():
    """Before the operator sets images, store and name, each of them is a fault that names the variable."""
    wanted = WantedObjects(PROD)
    faults = [each.seen for each in findings(healthy(wanted), wanted, "fault") if "placeholder" in each.seen]
    assert "extract-features: FEATURE_STORE_URL is the placeholder rediss://redis.example.com:6379/0" in faults
    assert "recommend.example.com: DomainMapping is the placeholder recommend.example.com" in faults
    assert any(each.startswith("rank-items: image is the placeholder") for each in faults)


def test_a_hop_to_another_namespace_is_a_fault():
    """An overlay that names the own Services in a namespace that is not its own."""
    wanted = WantedObjects(DEV)
    (recommend,) = [each for each in wanted.services if each.name == "recommend"]
    (variable,) = [
        each
        for each in recommend.body["spec"]["template"]["spec"]["containers"][0]["env"]
        if each["name"] == "RANK_ITEMS_URL"
    ]
    variable["value"] = "http://rank-items.tenant.svc.cluster.local"
    (found,) = findings(healthy(wanted), wanted, "fault")
    assert found.seen == "recommend: RANK_ITEMS_URL leads to the namespace tenant, and the overlay applies to default"


def test_before_the_first_apply_nothing_is_a_fault_but_what_the_operator_creates(prod, dev):
    """Services that do not exist yet are notes; Secrets that the operator must create first are faults."""
    for wanted, expected in ((dev, []), (prod, ["feature-store", "recommend-tokens"])):
        bare = healthy(wanted)
        for kind in (KSVC, "pods", "secrets", "endpointslices.discovery.k8s.io", "configmaps"):
            bare[kind] = [each for each in bare[kind] if each["metadata"].get("namespace") != wanted.namespace]
        for kind in (
            "certificates.networking.internal.knative.dev",
            "certificates.cert-manager.io",
            "domainmappings.serving.knative.dev",
        ):
            bare[kind] = []
        named = [each.seen.partition("Secret ")[2].partition(",")[0] for each in findings(bare, wanted, "fault")]
        assert sorted(set(named)) == expected
        assert any("not deployed" in each.seen for each in findings(bare, wanted, "note"))


def test_the_model_and_the_store_of_the_demo(dev):
    """seed-demo that has not written the model, and a store without a ready pod, are faults."""
    objects = without(healthy(dev), "configmaps", "model")
    objects["deployments.apps"].append(made("seed-demo", "default", spec={}, status={"availableReplicas": 1}))
    objects["endpointslices.discovery.k8s.io"][0]["endpoints"] = []
    faults = {each.seen: each.todo for each in findings(objects, dev, "fault")}
    assert faults["seed-demo has not written the model yet"] == "look at kubectl logs deployment/seed-demo"
    assert "the feature store has no ready pod" in faults


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}}]},
            "user-container: ImagePullBackOff no such tag",
        ),
        # The container runs again, and is not ready.
        (
            {"containerStatuses": [{"state": {"running": {}}, "lastState": {"terminated": {"reason": "OOMKilled"}}}]},
            "user-container: OOMKilled",
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes: 1 Insufficient cpu."}]},
            "0/1 nodes: 1 Insufficient cpu.",
        ),
    ],
)
def test_the_reason_of_a_pod_that_does_not_run_is_shown(prod, status, reason):
    """The finding about a Service has the reason why its pods do not run, such as an image that cannot be pulled."""
    status = {
        **status,
        "containerStatuses": [{"name": "user-container"} | each for each in status.get("containerStatuses", ())],
    }
    objects = changed(healthy(prod), KSVC, "rank-items", put(status={"conditions": UNREADY}))
    objects = changed(objects, "pods", "rank-items-node-a", put(status=status))
    (found,) = findings(objects, prod, "fault")
    assert reason in found.seen


def test_flags_of_serving_are_compared(tmp_path):
    """The overlay for GPUs needs two flags, and the finding has the command that enables one."""
    wanted = filled(WantedObjects(ROOT / "knative/overlays/gpu"))
    objects = changed(
        healthy(wanted), "configmaps", "config-features", put(data={"kubernetes.podspec-tolerations": "Allowed"})
    )
    (found,) = findings(objects, wanted, "fault")
    assert found.seen == "rank-items needs the flag kubernetes.podspec-nodeselector"
    assert '{"data":{"kubernetes.podspec-nodeselector":"enabled"}}' in found.todo


def test_a_killed_rollout_is_a_note(prod):
    """The tag that a killed rollout leaves is shown, with the command that restores the Service."""
    objects = changed(
        healthy(prod), KSVC, "rank-items", lambda body: body["status"]["traffic"].append({"tag": "candidate"})
    )
    (found,) = [each for each in findings(objects, prod, "note") if "rollout" in each.seen]
    assert "./run.sh rollout restores" in found.todo


def test_a_cluster_without_the_prometheus_operator_is_a_note(prod):
    """Monitoring is optional."""
    objects = without(healthy(prod), "podmonitors.monitoring.coreos.com")
    assert findings(objects, prod, "fault") == []
    assert any("Prometheus operator" in each.seen for each in findings(objects, prod, "note"))


class TestVerb:
    """The verb, with a kubectl that serves recorded objects."""

    def test_it_reads_each_kind_once_and_changes_nothing(self, dev, tmp_path, capsys):
        """Every command is `get` or `version`, and none is sent twice with the same arguments except `version`."""
        program = kubectl(tmp_path / "kubectl", healthy(dev))
        assert main(["cluster", "doctor", "--overlay", str(DEV), "--kubectl", program]) == 0
        sent = (tmp_path / "kubectl.log").read_text().splitlines()
        gets = [line for line in sent if line.startswith("get ")]
        assert len(sent) - len(gets) == sent.count("version --output json")
        assert len(set(gets)) == len(gets)
        for line in gets:
            assert parse(f"kubectl {line}").verb == "get"
        assert "ok     rank-items is ready: rank-items-00001\n" in capsys.readouterr().out

    def test_a_fault_sets_the_exit_status(self, dev, tmp_path, capsys):
        """The output is JSON on request."""
        program = kubectl(tmp_path / "kubectl", without(healthy(dev), "namespaces", "knative-eventing"))
        assert main(["cluster", "doctor", "--overlay", str(DEV), "--kubectl", program, "--json"]) == 1
        faults = [each for each in json.loads(capsys.readouterr().out) if each["level"] == "fault"]
        assert [each["seen"] for each in faults] == ["Knative Eventing is not installed"]

    def test_a_kind_that_may_not_be_read_is_a_fault(self, prod, tmp_path, capsys):
        """The finding contains kubectl's message, and the other checks go on."""
        program = kubectl(tmp_path / "kubectl", healthy(prod), forbidden=["secrets"])
        assert main(["cluster", "doctor", "--overlay", str(PROD), "--kubectl", program]) == 1
        out = capsys.readouterr().out
        assert "secrets is forbidden; give this kubectl the right" in out
        assert "recommend is ready" in out

    def test_the_objects_of_an_overlay_may_be_in_a_file(self, dev, tmp_path):
        """An overlay that names another one by URL is built by kubectl."""
        file = tmp_path / "objects.yaml"
        file.write_text("\n---\n".join(json.dumps(each.body) for each in dev.resources))
        program = kubectl(tmp_path / "kubectl", healthy(dev))
        assert main(["cluster", "doctor", "--overlay", str(file), "--kubectl", program]) == 0

    def test_without_a_cluster_there_is_one_finding(self, tmp_path, capsys):
        """A kubectl that does not run or reaches nothing is the only finding."""
        assert main(["cluster", "doctor", "--overlay", str(DEV), "--kubectl", "/nowhere/kubectl"]) == 1
        assert capsys.readouterr().out.startswith("fault  cannot run /nowhere/kubectl")

    def test_a_folder_without_services_is_refused(self, tmp_path, capsys):
        """The message names the folder."""
        folder = Path(tmp_path)
        (folder / "map.yaml").write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: m}}")
        assert main(["cluster", "doctor", "--overlay", str(folder), "--kubectl", "false"]) == 1
        assert capsys.readouterr().err == f"{folder}: has no Knative Service\n"


@pytest.mark.parametrize(
    ("ingress", "gateway", "todo"),
    [
        (
            "istio",
            made("istio-ingressgateway", "istio-system", spec={"replicas": 2}, status={"availableReplicas": 2}),
            "add components/gateway-istio to",
        ),
        (
            "contour",
            made("envoy", "contour-external", spec={}, status={"numberAvailable": 1}),
            "add components/gateway-contour to",
        ),
    ],
    ids=["istio", "contour"],
)
def test_a_gateway_that_the_policies_do_not_admit_is_a_fault(prod, ingress, gateway, todo):
    """The overlay is made for Kourier; the finding names the component for the installed gateway."""
    name = f"{ingress}.ingress.networking.knative.dev"
    objects = changed(healthy(prod), "configmaps", "config-network", data(ingress_class=name))
    objects["deployments.apps" if ingress == "istio" else "daemonsets.apps"] = [*objects["deployments.apps"], gateway]
    (found,) = findings(objects, prod, "fault")
    assert found.seen == f"the NetworkPolicies admit no pod of {gateway['metadata']['namespace']}"
    assert todo in found.todo
