"""Every overlay as a cluster gets it, checked by rules.py and schemas.py."""

import copy
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeyaml.quantities import parse_quantity
from recrank.places import BucketPlace, parse_place
from tests.knative.objects import (
    KNATIVE,
    ON_CLUSTERS,
    OVERLAYS,
    ROOT,
    Object,
    annotations,
    assert_kubectl_agrees,
    build,
    container,
    needs_kubectl,
    overlay,
    pod_of,
    services,
)
from tests.knative.rules import RULES
from tests.knative.schemas import faults

pytestmark = pytest.mark.may_block


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ON_CLUSTERS)
def test_an_overlay_follows_the_rule(name, rule):
    """The overlay follows the rule; a failure names the overlay, the rule and the objects."""
    found = list(RULES[rule](name, overlay(name)))
    assert not found, f"overlay {name}, rule {rule} ({RULES[rule].__doc__}): {found}"


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_object_fits_its_schema(name):
    """Each object has only fields of its kind, with the right types."""
    assert [fault for body in overlay(name) for fault in faults(body)] == []


@needs_kubectl
@pytest.mark.parametrize("name", OVERLAYS)
def test_kubectl_builds_the_same_objects(name):
    """The objects that these tests check equal those that `kubectl apply -k` sends."""
    assert_kubectl_agrees(KNATIVE / "overlays" / name)


def with_components(folder: Path, *names: str) -> list[Object]:
    """Return production with further components; its kustomization is in *folder*."""
    there = os.path.relpath(KNATIVE, folder.resolve())
    added = ", ".join(f"{there}/components/{name}" for name in names)
    (folder / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: recsys\n"
        f"resources: [{there}/overlays/prod]\ncomponents: [{added}]\n"
        "images: [{name: offline, newName: registry.example.com/recsys/offline, newTag: v0.1.0}]\n"
    )
    return build(folder)


@pytest.mark.parametrize(
    "components",
    [
        ["event-policy"],
        ["served-events"],
        ["exposures"],
        ["service-tokens"],
        ["model-volume"],
        ["model-volume", "training"],
        ["model-s3"],
        ["training", "model-s3"],
        ["zero"],
    ],
    ids="+".join,
)
def test_optional_components_fit_production(components, tmp_path):
    """Components that are not part of an overlay can be added to production, which stays valid."""
    objects = with_components(tmp_path, *components)
    assert [fault for body in objects for fault in faults(body)] == []
    kept = {
        name: rule for name, rule in RULES.items() if name not in {"event_policy_is_opt_in", "webhook_accepts_services"}
    }
    # The secrets are the user's, and components/zero lowers the minimum on purpose.
    expected = {"service-tokens", "Secret model-store", "scales 0..5"}
    found = [fault for rule in kept.values() for fault in rule("prod", copy.deepcopy(objects))]
    assert [fault for fault in found if not any(each in fault for each in expected)] == []


def test_the_training_writes_where_rank_items_reads(tmp_path):
    """Both mount one claim at the same path, only the training may write, and its account may update rank-items."""
    objects = with_components(tmp_path, "model-volume", "training")
    named = {(body["kind"], body["metadata"]["name"]): body for body in objects}
    pods = {name: pod_of(named[kind, name]) for kind, name in [("CronJob", "training"), ("Service", "rank-items")]}
    mounts = {
        name: (volume["persistentVolumeClaim"]["claimName"], mount["mountPath"], bool(mount.get("readOnly")))
        for name, pod in pods.items()
        if pod
        for volume in pod["volumes"]
        for mount in pod["containers"][0]["volumeMounts"]
        if volume["name"] == mount["name"] == "models"
    }
    assert mounts == {"training": ("models", "/models", False), "rank-items": ("models", "/models", True)}
    (train,) = named["CronJob", "training"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert train["image"] == "registry.example.com/recsys/offline:v0.1.0"
    assert train["command"][-4:] == ["--state-dir", "/models", "--service", "rank-items"]
    (permitted,) = named["Role", "training"]["rules"]
    assert (permitted["resourceNames"], permitted["verbs"]) == (["rank-items"], ["get", "update"])
    (subject,) = named["RoleBinding", "training"]["subjects"]
    assert (subject["name"], subject.get("namespace")) == ("training", "recsys")


def test_the_training_publishes_where_rank_items_looks(tmp_path):
    """With an object store, the place and the Secret are the same, and the job needs neither volume nor token."""
    objects = with_components(tmp_path, "training", "model-s3")
    named = {(body["kind"], body["metadata"]["name"]): body for body in objects}
    job, function = (pod_of(named[key]) for key in [("CronJob", "training"), ("Service", "rank-items")])
    assert job is not None
    assert function is not None
    (train,), (rank,) = job["containers"], function["containers"]
    given = [{each["name"]: each.get("value", each.get("valueFrom")) for each in one["env"]} for one in (train, rank)]
    assert train["command"][-2:] == ["--to", given[1]["MODEL_PATH"]]
    assert parse_place(given[1]["MODEL_PATH"]) == BucketPlace("recsys-models", "production")
    keys = [{name: value for name, value in one.items() if name.startswith("AWS_")} for one in given]
    assert keys[0] == keys[1]
    assert {each["secretKeyRef"]["name"] for each in keys[0].values()} == {"model-store"}
    assert [each["name"] for each in job["volumes"] if "persistentVolumeClaim" in each] == []
    assert job["automountServiceAccountToken"] is False
    # The copies do not fit into the memory of /tmp.
    (mount,) = [each for each in rank["volumeMounts"] if each["mountPath"] == given[1]["TMPDIR"]]
    assert "readOnly" not in mount


def test_a_model_in_an_image_is_mounted_where_rank_items_reads(tmp_path):
    """The folder in MODEL_PATH is in the volume, and a cluster without the feature flag is the only fault."""
    objects = with_components(tmp_path, "model-image")
    (fault,) = [fault for body in objects for fault in faults(body)]
    assert "needs the feature kubernetes.podspec-volumes-image" in fault
    (service,) = [body for body in objects if (body["kind"], body["metadata"]["name"]) == ("Service", "rank-items")]
    pod = service["spec"]["template"]["spec"]
    (volume,) = [each for each in pod["volumes"] if "image" in each]
    (mount,) = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == volume["name"]]
    (path,) = [each["value"] for each in pod["containers"][0]["env"] if each["name"] == "MODEL_PATH"]
    assert (path, mount["readOnly"]) == (f"{mount['mountPath']}/models", True)
    assert len({each["name"] for each in pod["volumes"]}) == len(pod["volumes"])


def test_an_authority_of_ones_own_is_mounted_into_every_client_of_redis(tmp_path):
    """All that know an address or a password of Redis mount the file that the runbook names in the addresses."""
    objects = with_components(tmp_path, "training", "redis-authority")
    (job,) = [body for body in objects if body["kind"] == "CronJob"]
    pods = {name: service["spec"]["template"]["spec"] for name, service in services(objects).items()}
    pods["training"] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    for name, pod in pods.items():
        (container,) = pod["containers"]
        secrets = [(each.get("valueFrom") or {}).get("secretKeyRef", {}).get("name") for each in container["env"]]
        mounts = {each["mountPath"]: each["name"] for each in container.get("volumeMounts") or ()}
        assert ("/etc/redis-authority" in mounts) == ("feature-store" in secrets), name
        volumes = [each["configMap"]["name"] for each in pod.get("volumes") or () if each["name"] == "redis-authority"]
        assert volumes == ["redis-authority"] * ("/etc/redis-authority" in mounts)
    runbook = (ROOT / "docs/how-to/run-on-a-cluster.md").read_text()
    assert "?ssl_ca_certs=/etc/redis-authority/ca.crt" in runbook
    assert "--from-file=ca.crt=" in runbook


def test_the_quota_has_room_for_a_rollout_at_full_scale(tmp_path):
    """All Services at their maximum, twice, with queue-proxies and a training, fit into the quota."""
    objects = with_components(tmp_path, "quota", "training")
    by_kind = {body["kind"]: body for body in objects}
    hard = {name: parse_quantity(value) for name, value in by_kind["ResourceQuota"]["spec"]["hard"].items()}
    (limits,) = by_kind["LimitRange"]["spec"]["limits"]
    # queue-proxy requests this CPU by default.
    proxy = {"requests": {"cpu": "25m", **limits["defaultRequest"]}, "limits": limits["default"]}
    used = dict.fromkeys(hard, Decimal())
    training = by_kind["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    pods = [
        (1, [training[0]["resources"]]),
        *(
            (2 * int(annotations(each)["max-scale"]), [container(each)["resources"], proxy])
            for each in services(objects).values()
        ),
    ]
    for count, containers in pods:
        used["pods"] += count
        for name in hard.keys() - {"pods"}:
            kind, _, resource = name.partition(".")
            used[name] += count * sum(parse_quantity(each[kind][resource]) for each in containers)
    assert {name: hard[name] for name in hard if not used[name] <= hard[name] <= Decimal("1.3") * used[name]} == {}


def test_the_priority_has_a_class(tmp_path):
    """The class is outside the overlay, because removing one installation must not take it from the others."""
    objects = with_components(tmp_path, "priority")
    of_pods = {service["spec"]["template"]["spec"].get("priorityClassName") for service in services(objects).values()}
    class_ = yaml.safe_load((KNATIVE / "cluster/priority-class.yaml").read_text())
    assert of_pods == {class_["metadata"]["name"], None}
    assert not [body for body in objects if body["kind"] == "PriorityClass"]


@pytest.mark.parametrize(
    ("component", "gateways"),
    [("gateway-istio", {"istio-system"}), ("gateway-contour", {"contour-external", "contour-internal"})],
)
def test_other_gateways_are_admitted(component, gateways, tmp_path):
    """With Istio or Contour in place of Kourier, only the gateway's namespaces in the network policy change."""

    def sources(objects: list[Object]) -> dict[tuple[str, str], set[int]]:
        """Return the ports that each namespace may reach, by policy."""
        return {
            (policy["metadata"]["name"], source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]): {
                port["port"] for port in rule["ports"]
            }
            for policy in objects
            if policy["kind"] == "NetworkPolicy"
            for rule in policy["spec"]["ingress"]
            for source in rule["from"]
        }

    expected = sources(overlay("prod"))
    ports = expected.pop(("gateway", "kourier-system"))
    assert sources(with_components(tmp_path, component)) == expected | {("gateway", name): ports for name in gateways}


def with_change(path: str, value: Any) -> list[Object]:
    """Return the dev overlay with one value of rank-items changed."""
    objects = overlay("dev")
    node: Any = services(objects)["rank-items"]
    *parents, last = path.split("/")
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node[part]
    node[last] = value
    return objects


@pytest.mark.parametrize(
    ("rule", "path", "value"),
    [
        ("webhook_accepts_services", "spec/template/spec/terminationGracePeriodSeconds", 30),
        ("no_selector_was_injected", "spec/selector", {"app": "x"}),
        ("profile_is_restricted", "spec/template/spec/containers/0/securityContext", {}),
        ("no_token_is_mounted", "spec/template/spec/automountServiceAccountToken", True),
        ("no_volume_delays_a_start", "spec/template/spec/volumes", [{"name": "tmp", "emptyDir": {}}]),
        ("probes_are_set", "spec/template/spec/containers/0/readinessProbe", {"tcpSocket": {}}),
        ("scaling_is_explicit", "spec/template/spec/containerConcurrency", 3),
        ("timeouts_are_nested", "spec/template/spec/timeoutSeconds", 10),
        ("timeouts_are_nested", "spec/template/spec/responseStartTimeoutSeconds", 20),
        ("resources_are_bounded", "spec/template/spec/containers/0/resources", {"limits": {"cpu": "500m"}}),
        ("ports_are_free", "spec/template/spec/containers/0/ports", [{"containerPort": 9090}]),
        ("only_recommend_is_public", "metadata/labels", {}),
        ("images_have_a_registry_and_a_tag", "spec/template/spec/containers/0/image", "rank-items"),
        ("references_exist", "spec/template/spec/volumes", [{"name": "x", "configMap": {"name": "recsys"}}]),
        ("network_policy_admits_knative", "spec/template/metadata/labels", {}),
        ("every_object_has_our_label", "metadata/labels", {}),
    ],
)
def test_a_rule_finds_its_fault(rule, path, value):
    """Each rule reports the fault that it is written for."""
    assert list(RULES[rule]("dev", with_change(path, value)))


def test_a_schema_finds_unknown_fields_and_wrong_types():
    """Each fault is reported with its path."""
    (broker,) = [body for body in overlay("dev") if body["kind"] == "Broker"]
    broker["spec"]["delivery"]["retries"] = 3
    broker["spec"]["delivery"]["retry"] = "10"
    assert sorted(faults(broker)) == [
        "Broker default: spec.delivery.retries: is not a known field",
        "Broker default: spec.delivery.retry: '10' is not a valid int",
    ]
