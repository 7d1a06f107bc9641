"""
The rules for the manifests, one function each; a rule yields a sentence for each fault.

Sources: knative/serving pkg/apis/serving (fieldmask.go, k8s_validation.go), pkg/queue, pkg/reconciler; knative/eventing
pkg/apis; Kubernetes' Pod Security Standards, profile "restricted".
"""

import re
from collections.abc import Callable, Iterator

import yaml

from kubeyaml.quantities import parse_quantity
from kubeyaml.resources import Resource
from kubeyaml.validation import service_faults
from recsys.contracts import events
from tests.knative.objects import (
    KNATIVE,
    Object,
    annotations,
    container,
    environment,
    functions,
    pods,
    services,
    walk,
)
from tools.cluster.wanted import POD_FLAGS
from tools.doctor import find_hidden_load

Rule = Callable[[str, list[Object]], Iterator[str]]

QUEUE_PROXY_PORTS = {8008, 8012, 8013, 8022, 8112, 9090, 9091}
# Queue-proxy ends a pod only after a quiet period of this length, and Kubernetes kills the pod after timeoutSeconds.
QUIET_S = 30
# ConfigMaps and Secrets that exist before an overlay is applied, or that one of its pods creates.
MADE_ELSEWHERE = {
    "dev": {"model"},
    "sequence": {"model"},
    "small": {"model"},
    **{name: {"recommend-tokens", "feature-store"} for name in ("prod", "gpu", "kafka")},
}
TYPES = {
    events.INTERACTION,
    events.USER_UPDATED,
    events.ERASED,
    events.ITEM_UPSERTED,
    events.ITEM_REMOVED,
    events.REQUESTED,
    events.COMPLETED,
    events.SERVED,
    events.SERVED_GROUP,
    events.UPDATED,
    events.EXTRACTED,
}


def flags_are_switched_on(_: str, objects: list[Object]) -> Iterator[str]:
    """A field that needs a feature flag has its flag enabled in cluster/config-features.yaml."""
    enabled = yaml.safe_load((KNATIVE / "cluster/config-features.yaml").read_text())["data"]
    for name, service in services(objects).items():
        for field in POD_FLAGS.keys() & service["spec"]["template"]["spec"].keys():
            if enabled.get(POD_FLAGS[field]) != "enabled":
                yield f"{name} uses {field}, and {POD_FLAGS[field]} is not enabled"


def webhook_accepts_services(_: str, objects: list[Object]) -> Iterator[str]:
    """Knative's webhook accepts the fields, types, ranges and annotations."""
    for name, service in services(objects).items():
        for field in POD_FLAGS:
            service["spec"]["template"]["spec"].pop(field, None)
        yield from (f"{name}: {path}: {text}" for path, text in service_faults(service))


def no_selector_was_injected(_: str, objects: list[Object]) -> Iterator[str]:
    """No Service has a selector, which kustomize's commonLabels adds and Knative does not know."""
    yield from (name for name, service in services(objects).items() if "selector" in service["spec"])


def profile_is_restricted(_: str, objects: list[Object]) -> Iterator[str]:
    """Every container runs under the restricted profile with a read-only root."""
    for name, pod in pods(objects):
        for each in pod["containers"]:
            said = {**(pod.get("securityContext") or {}), **(each.get("securityContext") or {})}
            wanted = {
                "runAsNonRoot": True,
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }
            yield from (f"{name}: {key}" for key, value in wanted.items() if said.get(key) != value)


def no_token_is_mounted(_: str, objects: list[Object]) -> Iterator[str]:
    """Only the pods that publish a model get a ServiceAccount token, and no pod gets service links."""
    for name, pod in pods(objects):
        if name not in {"seed-demo", "training"} and pod.get("automountServiceAccountToken") is not False:
            yield f"{name}: automountServiceAccountToken is not false"
        if pod.get("enableServiceLinks") is not False:
            yield f"{name}: enableServiceLinks is not false"


def no_volume_delays_a_start(_: str, objects: list[Object]) -> Iterator[str]:
    """A function mounts only files that its pod lacks, because a volume delays each start; /dev/shm is writable."""
    for name, service in functions(objects).items():
        for volume in service["spec"]["template"]["spec"].get("volumes") or ():
            if volume["name"] not in {"model", "models", "tokens", "service-tokens"}:
                yield f"{name}: the volume {volume['name']}"
        for variable in ("POPULAR_LIST_PATH", "TMPDIR"):
            path = environment(service, objects).get(variable, "/dev/shm/")
            if not path.startswith(("/dev/shm/", "/models")):
                yield f"{name}: {variable} is {path}, which cannot be written"


def probes_are_set(_: str, objects: list[Object]) -> Iterator[str]:
    """Readiness has no periodSeconds, so that queue-proxy probes every 50 ms; liveness checks only the process."""
    for name, service in services(objects).items():
        if container(service).get("readinessProbe") != {"httpGet": {"path": "/readyz"}}:
            yield f"{name}: readinessProbe is {container(service).get('readinessProbe')}"
        liveness = container(service).get("livenessProbe") or {}
        if (liveness.get("httpGet") or {}).get("path") != "/livez" or not liveness.get("periodSeconds"):
            yield f"{name}: livenessProbe is {liveness}"


def scaling_is_explicit(_: str, objects: list[Object]) -> Iterator[str]:
    """Every scaling setting of a function is set, because the defaults differ between clusters."""
    for name, service in functions(objects).items():
        given, spec = annotations(service), service["spec"]["template"]["spec"]
        wanted = {"class", "metric", "target", "target-utilization-percentage", "min-scale", "max-scale", "initial-scale",
                  "window", "scale-down-delay", "target-burst-capacity"}  # fmt: skip
        yield from (f"{name}: {each} is not set" for each in wanted - given.keys())
        if not 1 <= int(given["min-scale"]) <= int(given["max-scale"]) == 5:
            yield f"{name}: scales {given['min-scale']}..{given['max-scale']}, not from at least 1 to 5"
        if int(given["initial-scale"]) < int(given["min-scale"]):
            yield f"{name}: a new revision takes over with {given['initial-scale']}, below its minimum"
        # A hard limit would starve the batcher and queue requests at a pod while another pod is free.
        if spec["containerConcurrency"] != 0:
            yield f"{name}: containerConcurrency is {spec['containerConcurrency']}"


def timeouts_are_nested(_: str, objects: list[Object]) -> Iterator[str]:
    """The ranker's timeouts are below recommend's, and each function times out before its platform."""
    found, within = functions(objects), {}
    for name, service in found.items():
        spec, env = service["spec"]["template"]["spec"], environment(service, objects)
        budget, first = float(env["MAX_REQUEST_TIMEOUT_S"]), spec["responseStartTimeoutSeconds"]
        within[name] = first
        if not float(env["REQUEST_TIMEOUT_S"]) <= budget < first <= spec["timeoutSeconds"]:
            yield f"{name}: {env['REQUEST_TIMEOUT_S']} <= {budget} < {first} <= {spec['timeoutSeconds']} does not hold"
        if spec["timeoutSeconds"] <= QUIET_S:
            yield f"{name}: killed after {spec['timeoutSeconds']} s, before queue-proxy's {QUIET_S} s of quiet are over"
    ranker = _ranker(objects)
    if float(environment(found[ranker], objects)["BATCH_WAIT_TIMEOUT_S"]) >= within[ranker]:
        yield f"{ranker} waits for a batch longer than a request may take"
    if any(within["recommend"] <= seconds for name, seconds in within.items() if name != "recommend"):
        yield "recommend gives up before those it calls"


def resources_are_bounded(_: str, objects: list[Object]) -> Iterator[str]:
    """Every container requests CPU and memory and has a memory limit; a CPU limit is whole and equals CPU_LIMIT."""
    for name, pod in pods(objects):
        for each in pod["containers"]:
            limits = each.get("resources", {}).get("limits", {})
            if not {"cpu", "memory"} <= each.get("resources", {}).get("requests", {}).keys() or "memory" not in limits:
                yield f"{name}: {each.get('resources')}"
            if "cpu" in limits and parse_quantity(str(limits["cpu"])) % 1:
                yield f"{name}: a limit of {limits['cpu']} CPUs throttles thread pools"
    ranker = services(objects)[_ranker(objects)]
    limit = container(ranker)["resources"]["limits"].get("cpu")
    if limit and environment(ranker, objects)["CPU_LIMIT"] != limit:
        yield f"{_ranker(objects)}: CPU_LIMIT is not limits.cpu ({limit})"


def _ranker(objects: list[Object]) -> str:
    """Return the name of the Service that ranks."""
    return "rank-items" if "rank-items" in services(objects) else "recommend"


def ports_are_free(_: str, objects: list[Object]) -> Iterator[str]:
    """A function does not use a port of the queue-proxy in its pod."""
    for name, service in services(objects).items():
        taken = {port["containerPort"] for port in container(service)["ports"]}
        taken.add(int(environment(service, objects).get("METRICS_PORT", 0)))
        yield from (f"{name}: port {port} is queue-proxy's" for port in taken & QUEUE_PROXY_PORTS)


def only_recommend_is_public(_: str, objects: list[Object]) -> Iterator[str]:
    """Only recommend is reachable from outside the cluster."""
    for name, service in services(objects).items():
        local = service["metadata"]["labels"].get("networking.knative.dev/visibility") == "cluster-local"
        if local == (name == "recommend"):
            yield f"{name} is {'private' if local else 'public'}"


def authentication_is_set(overlay: str, objects: list[Object]) -> Iterator[str]:
    """Every function has AUTH set, and recommend requires tokens in production."""
    for name, service in functions(objects).items():
        env = environment(service, objects)
        if "AUTH" not in env:
            yield f"{name}: AUTH is not set"
        if name == "recommend" and overlay not in {"dev", "sequence", "small"} and env.get("AUTH") != "tokens":
            yield f"recommend is open: AUTH={env.get('AUTH')}"


def references_exist(overlay: str, objects: list[Object]) -> Iterator[str]:
    """Every ConfigMap and Secret that is named exists under that name, including its hash, or is created elsewhere."""
    there = {(body["kind"], body["metadata"]["name"]) for body in objects}
    named = {
        "configMapKeyRef.name": "ConfigMap", "configMapRef.name": "ConfigMap", "configMap.name": "ConfigMap",
        "secretKeyRef.name": "Secret", "secretRef.name": "Secret", "secret.secretName": "Secret",
    }  # fmt: skip
    for body in objects:
        for path, value in walk(body):
            kind = named.get(".".join(path.split(".")[-2:]))
            if kind and (kind, value) not in there and value not in MADE_ELSEWHERE.get(overlay, ()):
                yield f"{body['kind']} {body['metadata']['name']}: {path}: there is no {kind} {value}"


def configuration_is_immutable(_: str, objects: list[Object]) -> Iterator[str]:
    """The name of a ConfigMap contains a hash of its content, so a change makes a revision that can be rolled back."""
    for body in objects:
        if body["kind"] == "ConfigMap" and not re.search(r"-[a-z0-9]{10}$", body["metadata"]["name"]):
            yield body["metadata"]["name"]


def images_have_a_registry_and_a_tag(_: str, objects: list[Object]) -> Iterator[str]:
    """Every image has a fixed tag and a registry, because a bare name is pulled from a public registry."""
    for body in objects:
        for path, value in walk(body):
            if path.endswith("containers.image") and (
                value.endswith(":latest") or not re.search(r":|@", value) or ("/" not in value and "redis" not in value)
            ):
                yield f"{body['metadata']['name']}: {value}"


def hop_urls_name_services(_: str, objects: list[Object]) -> Iterator[str]:
    """The URL of a hop names a Service of the same build and namespace."""
    hosts = {f"{name}.{body['metadata']['namespace']}.svc" for name, body in services(objects).items()}
    hosts |= services(objects).keys()  # recommend adds its own namespace
    for name, service in services(objects).items():
        for variable, value in environment(service, objects).items():
            for host in re.findall(r"(?:^| )http://([^/: ]+)", value):
                if host not in hosts:
                    yield f"{name}: {variable}: {value}"


def groups_of_calls_show_the_load(_: str, objects: list[Object]) -> Iterator[str]:
    """recommend sends ranking calls in groups so small that the autoscaler of rank-items sees the load."""
    resources = [Resource(body, "overlay") for body in objects]
    yield from find_hidden_load([each for each in resources if each.is_service], resources)


def event_references_exist(_: str, objects: list[Object]) -> Iterator[str]:
    """The references of Eventing's objects are in the same build, and event types are those of the contracts."""
    there = {(body["apiVersion"], body["kind"], body["metadata"]["name"]) for body in objects}
    for body in objects:
        if not re.match(r"(eventing|flows|sources)\.knative\.dev/", body["apiVersion"]):
            continue
        for path, value in walk(body["spec"]):
            last = path.rpartition(".")[2]
            if last in {"ref", "reference", "sink", "subject"} and isinstance(value, dict) and "kind" in value:
                if (value["apiVersion"], value["kind"], value["name"]) not in there:
                    yield f"{body['kind']} {body['metadata']['name']}: {path}: there is no {value}"
            elif last == "type" and isinstance(value, str) and value not in TYPES:
                yield f"{body['kind']} {body['metadata']['name']}: {path}: {value} is not a type of the contracts"
        broker = body["spec"].get("broker")
        if broker and ("eventing.knative.dev/v1", "Broker", broker) not in there:
            yield f"{body['kind']} {body['metadata']['name']}: there is no Broker {broker}"


def deliveries_are_bounded(_: str, objects: list[Object]) -> Iterator[str]:
    """Deliveries are retried with exponential back-off, and undeliverable events go to a dead-letter sink."""
    found = [
        (body, value)
        for body in objects
        if body["kind"] in {"Broker", "Sequence"}
        for path, value in walk(body["spec"])
        if path.endswith("delivery") and isinstance(value, dict)
    ]
    if not any(body["kind"] == "Broker" for body, _ in found):
        yield "the Broker has no delivery"
    for body, delivery in found:
        durations = [delivery.get("backoffDelay", ""), delivery.get("timeout", "")]
        if (
            not delivery.get("retry")
            or delivery.get("backoffPolicy") != "exponential"
            or not delivery.get("deadLetterSink")
            or not all(re.fullmatch(r"PT\d+(\.\d+)?S", text) for text in durations)
        ):
            yield f"{body['kind']} {body['metadata']['name']}: {delivery}"


def network_policy_admits_knative(_: str, objects: list[Object]) -> Iterator[str]:
    """
    The gateway and the activator reach queue-proxy, the autoscaler reaches its metrics, and labels match the pods.
    """
    policies = [b for b in objects if b["kind"] == "NetworkPolicy" and b["metadata"]["name"] in {"services", "gateway"}]
    allowed = {
        (source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port["port"])
        for policy in policies
        for rule in policy["spec"]["ingress"]
        for source in rule["from"]
        for port in rule["ports"]
    }
    needed = {("kourier-system", 8012), ("knative-serving", 8012), ("knative-serving", 9090)}
    needed |= {("kourier-system", 8112), ("knative-serving", 8112)}
    yield from (f"{source} does not reach {port}" for source, port in needed - allowed)
    for name, service in services(objects).items():
        for policy in policies:
            chosen = policy["spec"]["podSelector"]["matchLabels"].items()
            if not chosen <= service["spec"]["template"]["metadata"]["labels"].items():
                yield f"{name}'s pods do not have the labels {dict(chosen)}"


def event_policy_is_opt_in(_: str, objects: list[Object]) -> Iterator[str]:
    """No overlay has an EventPolicy, which without authentication-oidc is never ready and keeps its Broker unready."""
    yield from (body["metadata"]["name"] for body in objects if body["kind"] == "EventPolicy")


def disruption_budgets_allow_drains(_: str, objects: list[Object]) -> Iterator[str]:
    """A disruption budget allows a drain to evict the only pod of a function."""
    for body in objects:
        if body["kind"] == "PodDisruptionBudget" and body["spec"].get("maxUnavailable") != 1:
            yield body["metadata"]["name"]


def every_object_has_our_label(_: str, objects: list[Object]) -> Iterator[str]:
    """Every object has the label that finds and removes it, except the generated ConfigMaps and Secrets."""
    for body in objects:
        labels = body["metadata"].get("labels") or {}
        if body["kind"] not in {"ConfigMap", "Secret"} and labels.get("app.kubernetes.io/part-of") != "recsys":
            yield f"{body['kind']} {body['metadata']['name']}"


RULES: dict[str, Rule] = {
    name: rule
    for name, rule in globals().items()
    if callable(rule) and getattr(rule, "__module__", "") == __name__ and not name.startswith("_")
}
RULES.pop("Rule", None)
