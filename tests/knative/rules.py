"""
What must hold of the manifests, a function for each rule. A rule yields a sentence for each fault.

Sources: knative/serving pkg/apis/serving (fieldmask.go, k8s_validation.go), pkg/queue, pkg/reconciler; knative/eventing
pkg/apis; Kubernetes' Pod Security Standards, profile "restricted".
"""

import re
from collections.abc import Callable, Iterator

import yaml

from kubeyaml.quantities import parse_quantity
from kubeyaml.validation import service_faults
from recsys.contracts import events
from tests.knative.objects import FUNCTIONS, KNATIVE, Object, annotations, container, environment, services, walk

Rule = Callable[[str, list[Object]], Iterator[str]]

QUEUE_PROXY_PORTS = {8008, 8012, 8013, 8022, 8112, 9090, 9091}
# Queue-proxy ends a pod only after so much quiet; a pod is killed after timeoutSeconds.
QUIET_S = 30
# What is behind a flag of Knative's, with that flag.
FLAGGED = {
    "nodeSelector": "kubernetes.podspec-nodeselector",
    "tolerations": "kubernetes.podspec-tolerations",
}
# What is made before an overlay is applied, or by a pod of it.
MADE_ELSEWHERE = {
    "dev": {"model"},
    "sequence": {"model"},
    **{name: {"recommend-tokens", "feature-store"} for name in ("prod", "gpu", "kafka")},
}
TYPES = {events.INTERACTION, events.REQUESTED, events.COMPLETED, events.SERVED, events.UPDATED, events.EXTRACTED}


def flags_are_switched_on(_: str, objects: list[Object]) -> Iterator[str]:
    """A field behind a flag of Knative's: the flag stands in cluster/config-features.yaml."""
    enabled = yaml.safe_load((KNATIVE / "cluster/config-features.yaml").read_text())["data"]
    for name, service in services(objects).items():
        for field in FLAGGED.keys() & service["spec"]["template"]["spec"].keys():
            if enabled.get(FLAGGED[field]) != "enabled":
                yield f"{name} uses {field}, and {FLAGGED[field]} is not enabled"


def webhook_accepts_services(_: str, objects: list[Object]) -> Iterator[str]:
    """Fields, types, ranges and annotations are what Knative's webhook accepts."""
    for name, service in services(objects).items():
        for field in FLAGGED:
            service["spec"]["template"]["spec"].pop(field, None)
        yield from (f"{name}: {path}: {text}" for path, text in service_faults(service))


def no_selector_was_injected(_: str, objects: list[Object]) -> Iterator[str]:
    """Kustomize's commonLabels puts a selector into every kind `Service`; Knative has no such field."""
    yield from (name for name, service in services(objects).items() if "selector" in service["spec"])


def profile_is_restricted(_: str, objects: list[Object]) -> Iterator[str]:
    """Every container runs under the restricted profile, its root read-only."""
    for body in objects:
        pod = (body.get("spec") or {}).get("template", {}).get("spec")
        for each in pod["containers"] if pod else ():
            said = {**(pod.get("securityContext") or {}), **(each.get("securityContext") or {})}
            wanted = {
                "runAsNonRoot": True,
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }
            yield from (f"{body['metadata']['name']}: {key}" for key, value in wanted.items() if said.get(key) != value)


def no_token_is_mounted(_: str, objects: list[Object]) -> Iterator[str]:
    """No pod gets a ServiceAccount token but the one that publishes the model; nobody gets service links."""
    for body in objects:
        pod = (body.get("spec") or {}).get("template", {}).get("spec")
        if pod and body["metadata"]["name"] != "seed-demo" and pod.get("automountServiceAccountToken") is not False:
            yield f"{body['metadata']['name']}: automountServiceAccountToken is not false"
        if pod and pod.get("enableServiceLinks") is not False:
            yield f"{body['metadata']['name']}: enableServiceLinks is not false"


def scratch_is_there(_: str, objects: list[Object]) -> Iterator[str]:
    """With a read-only root, what a function writes goes to a /tmp of its own that is bounded."""
    for name in FUNCTIONS:
        service = services(objects)[name]
        volumes = {each["name"]: each for each in service["spec"]["template"]["spec"].get("volumes") or ()}
        mounts = {each["mountPath"]: each["name"] for each in container(service).get("volumeMounts") or ()}
        if not volumes.get(mounts.get("/tmp", ""), {}).get("emptyDir", {}).get("sizeLimit"):
            yield f"{name}: no emptyDir with a sizeLimit at /tmp"


def readiness_is_aggressive(_: str, objects: list[Object]) -> Iterator[str]:
    """Readiness without periodSeconds is probed every 50 ms by queue-proxy; liveness asks only for the process."""
    for name, service in services(objects).items():
        if container(service).get("readinessProbe") != {"httpGet": {"path": "/readyz"}}:
            yield f"{name}: readinessProbe is {container(service).get('readinessProbe')}"
        liveness = container(service).get("livenessProbe") or {}
        if (liveness.get("httpGet") or {}).get("path") != "/livez" or not liveness.get("periodSeconds"):
            yield f"{name}: livenessProbe is {liveness}"


def scaling_is_decided(_: str, objects: list[Object]) -> Iterator[str]:
    """Nothing about a function's scaling is left to the cluster's defaults, which differ from cluster to cluster."""
    for name in FUNCTIONS:
        given, spec = annotations(services(objects)[name]), services(objects)[name]["spec"]["template"]["spec"]
        wanted = {"class", "metric", "target", "target-utilization-percentage", "min-scale", "max-scale", "initial-scale",
                  "window", "scale-down-delay", "target-burst-capacity"}  # fmt: skip
        yield from (f"{name}: {each} is not set" for each in wanted - given.keys())
        if not 1 <= int(given["min-scale"]) <= int(given["max-scale"]) == 5:
            yield f"{name}: scales {given['min-scale']}..{given['max-scale']}, not from at least 1 to 5"
        if int(given["initial-scale"]) < int(given["min-scale"]):
            yield f"{name}: a new revision takes over with {given['initial-scale']}, below its minimum"
        # A hard limit would starve the batcher, and queue at each pod what another one could take.
        if spec["containerConcurrency"] != 0:
            yield f"{name}: containerConcurrency is {spec['containerConcurrency']}"


def times_are_nested(_: str, objects: list[Object]) -> Iterator[str]:
    """The model's time is within rank-items', that within recommend's; each function gives up before its platform."""
    found, within = services(objects), {}
    for name in FUNCTIONS:
        spec, env = found[name]["spec"]["template"]["spec"], environment(found[name], objects)
        budget, first = float(env["MAX_REQUEST_TIMEOUT_S"]), spec["responseStartTimeoutSeconds"]
        within[name] = first
        if not float(env["REQUEST_TIMEOUT_S"]) <= budget < first <= spec["timeoutSeconds"]:
            yield f"{name}: {env['REQUEST_TIMEOUT_S']} <= {budget} < {first} <= {spec['timeoutSeconds']} does not hold"
        if spec["timeoutSeconds"] <= QUIET_S:
            yield f"{name}: killed after {spec['timeoutSeconds']} s, before queue-proxy's {QUIET_S} s of quiet are over"
    if float(environment(found["rank-items"], objects)["BATCH_WAIT_TIMEOUT_S"]) >= within["rank-items"]:
        yield "rank-items waits for a batch longer than a request may take"
    if within["recommend"] <= max(within["rank-items"], within["extract-features"]):
        yield "recommend gives up before those it calls"


def resources_are_bounded(_: str, objects: list[Object]) -> Iterator[str]:
    """Every container requests CPU and memory and has a memory limit; a CPU limit is whole and known to the program."""
    for body in objects:
        pod = (body.get("spec") or {}).get("template", {}).get("spec")
        for each in pod["containers"] if pod else ():
            limits = each.get("resources", {}).get("limits", {})
            if not {"cpu", "memory"} <= each.get("resources", {}).get("requests", {}).keys() or "memory" not in limits:
                yield f"{body['metadata']['name']}: {each.get('resources')}"
            if "cpu" in limits and parse_quantity(str(limits["cpu"])) % 1:
                yield f"{body['metadata']['name']}: a limit of {limits['cpu']} CPUs throttles thread pools"
    ranker = services(objects)["rank-items"]
    limit = container(ranker)["resources"]["limits"].get("cpu")
    if limit and environment(ranker, objects)["CPU_LIMIT"] != limit:
        yield f"rank-items: CPU_LIMIT is not limits.cpu ({limit})"


def ports_are_free(_: str, objects: list[Object]) -> Iterator[str]:
    """Queue-proxy has ports of its own in the same pod."""
    for name, service in services(objects).items():
        taken = {port["containerPort"] for port in container(service)["ports"]}
        taken.add(int(environment(service, objects).get("METRICS_PORT", 0)))
        yield from (f"{name}: port {port} is queue-proxy's" for port in taken & QUEUE_PROXY_PORTS)


def one_door_is_public(_: str, objects: list[Object]) -> Iterator[str]:
    """Only recommend has a name outside the cluster."""
    for name, service in services(objects).items():
        local = service["metadata"]["labels"].get("networking.knative.dev/visibility") == "cluster-local"
        if local == (name == "recommend"):
            yield f"{name} is {'private' if local else 'public'}"


def doors_are_decided(overlay: str, objects: list[Object]) -> Iterator[str]:
    """Every function is told who may call; in production the public one wants tokens."""
    for name in FUNCTIONS:
        env = environment(services(objects)[name], objects)
        if "AUTH" not in env:
            yield f"{name}: AUTH is not set"
        if name == "recommend" and overlay not in {"dev", "sequence"} and env.get("AUTH") != "tokens":
            yield f"recommend is open: AUTH={env.get('AUTH')}"


def references_lead_somewhere(overlay: str, objects: list[Object]) -> Iterator[str]:
    """Every ConfigMap and Secret named exists under that very name, hash and all, or is known to be made elsewhere."""
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
    """A ConfigMap a revision reads is named by its content: a change makes a revision, and rolling back undoes it."""
    for body in objects:
        if body["kind"] == "ConfigMap" and not re.search(r"-[a-z0-9]{10}$", body["metadata"]["name"]):
            yield body["metadata"]["name"]


def images_are_placed(_: str, objects: list[Object]) -> Iterator[str]:
    """No image keeps its bare name, which would be looked for in a public registry, and none moves under its tag."""
    for body in objects:
        for path, value in walk(body):
            if path.endswith("containers.image") and (
                value.endswith(":latest") or not re.search(r":|@", value) or ("/" not in value and "redis" not in value)
            ):
                yield f"{body['metadata']['name']}: {value}"


def hops_lead_to_services(_: str, objects: list[Object]) -> Iterator[str]:
    """URLs of hops name Services of the same build, in their namespace."""
    hosts = {f"{name}.{body['metadata']['namespace']}.svc.cluster.local" for name, body in services(objects).items()}
    for name, service in services(objects).items():
        for variable, value in environment(service, objects).items():
            host = re.match(r"http://([^/:]+)", value)
            if host and host[1] not in hosts:
                yield f"{name}: {variable}: {value}"


def events_lead_somewhere(_: str, objects: list[Object]) -> Iterator[str]:
    """Whatever Eventing's objects refer to is in the same build, and event types are those of the contracts."""
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
                yield f"{body['kind']} {body['metadata']['name']}: {path}: {value} is no type of the contracts"
        broker = body["spec"].get("broker")
        if broker and ("eventing.knative.dev/v1", "Broker", broker) not in there:
            yield f"{body['kind']} {body['metadata']['name']}: there is no Broker {broker}"


def deliveries_are_bounded(_: str, objects: list[Object]) -> Iterator[str]:
    """What cannot be delivered is tried again, with growing pauses, and then kept as a dead letter."""
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


def policies_let_knative_in(_: str, objects: list[Object]) -> Iterator[str]:
    """The gateway and the activator reach queue-proxy's doors, the autoscaler its figures; pods are chosen by label."""
    (policy,) = [b for b in objects if b["kind"] == "NetworkPolicy" and b["metadata"]["name"] == "services"]
    allowed = {
        (source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port["port"])
        for rule in policy["spec"]["ingress"]
        for source in rule["from"]
        for port in rule["ports"]
    }
    needed = {("kourier-system", 8012), ("knative-serving", 8012), ("knative-serving", 9090)}
    needed |= {("kourier-system", 8112), ("knative-serving", 8112)}
    yield from (f"{source} does not reach {port}" for source, port in needed - allowed)
    chosen = policy["spec"]["podSelector"]["matchLabels"].items()
    for name, service in services(objects).items():
        if not chosen <= service["spec"]["template"]["metadata"]["labels"].items():
            yield f"{name}'s pods do not have the labels {dict(chosen)}"


def event_policy_is_opt_in(_: str, objects: list[Object]) -> Iterator[str]:
    """Without authentication-oidc an EventPolicy never becomes ready, and neither does the Broker it applies to."""
    yield from (body["metadata"]["name"] for body in objects if body["kind"] == "EventPolicy")


def drains_can_end(_: str, objects: list[Object]) -> Iterator[str]:
    """A disruption budget lets a pod go even where a function has only one."""
    for body in objects:
        if body["kind"] == "PodDisruptionBudget" and body["spec"].get("maxUnavailable") != 1:
            yield body["metadata"]["name"]


def everything_is_ours(_: str, objects: list[Object]) -> Iterator[str]:
    """Every object can be found, and removed, by one label; generated ones go with what refers to them."""
    for body in objects:
        labels = body["metadata"].get("labels") or {}
        if body["kind"] not in {"ConfigMap", "Secret"} and labels.get("app.kubernetes.io/part-of") != "recsys":
            yield f"{body['kind']} {body['metadata']['name']}"


RULES: dict[str, Rule] = {
    name: rule for name, rule in globals().items() if callable(rule) and getattr(rule, "__module__", "") == __name__
}
RULES.pop("Rule", None)
