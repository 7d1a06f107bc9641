"""The verbs and flags of kn and kubectl that the runbook and the rollouts use."""

import shlex
from dataclasses import dataclass

_SHOW = {"-o", "--output", "-n", "--namespace"}

# For each verb the flags with a value and those without. From docs/cmd of knative/client at e411e88 (2026-07-29).
KN: dict[str, tuple[set[str], set[str]]] = {
    "service update": (
        {
            "-a", "--annotation", "--annotation-revision", "--annotation-service", "--arg", "--cmd",
            "--concurrency-limit", "--containers", "-e", "--env", "--env-file", "--env-from", "--env-value-from",
            "--image", "-l", "--label", "--label-revision", "--label-service", "--limit", "--mount", "-n",
            "--namespace", "--node-affinity", "--node-selector", "-p", "--port", "--probe-liveness",
            "--probe-liveness-opts", "--probe-readiness", "--probe-readiness-opts", "--profile", "--pull-policy",
            "--pull-secret", "--request", "--revision-name", "--scale", "--scale-activation", "--scale-init",
            "--scale-max", "--scale-metric", "--scale-min", "--scale-target", "--scale-utilization",
            "--scale-window", "--security-context", "--service-account", "--tag", "--target", "--timeout",
            "--toleration", "--traffic", "--untag", "--user", "--volume", "--wait-timeout", "--wait-window",
        },
        {"--cluster-local", "--no-cluster-local", "--lock-to-digest", "--no-lock-to-digest", "--no-wait", "--wait"},
    ),
    "service describe": ({*_SHOW, "--target", "--template"}, {"-v", "--verbose"}),
    "service list": ({*_SHOW, "--target", "--template"}, {"-A", "--all-namespaces", "--no-headers"}),
    "service delete": ({"-n", "--namespace", "--target", "--wait-timeout", "--wait-window"}, {"--all", "--no-wait", "--wait"}),
    "revision list": ({*_SHOW, "-s", "--service", "--template"}, {"-A", "--all-namespaces", "--no-headers"}),
    "revision describe": ({*_SHOW, "--template"}, {"-v", "--verbose"}),
    "revision delete": ({"-n", "--namespace", "--prune", "--wait-timeout"}, {"--no-wait", "--wait", "--prune-all"}),
}  # fmt: skip

_WHERE = {"-n", "--namespace", "-l", "--selector", "-o", "--output"}
KUBECTL: dict[str, tuple[set[str], set[str]]] = {
    "apply": ({"-k", "-f", "--namespace"}, set()),
    "delete": ({"-k", "-f", *_WHERE}, set()),
    "patch": ({"--namespace", "--type", "--patch", "--patch-file"}, set()),
    "wait": ({"--for", "--timeout", *_WHERE}, {"--all"}),
    "get": ({"--sort-by", *_WHERE}, {"--all-namespaces"}),
    "kustomize": (set(), set()),
    "version": ({"-o", "--output"}, set()),
    "describe": (_WHERE, set()),
    "logs": ({"-c", "--container", "--tail", *_WHERE}, set()),
    "create": ({"--from-file", "--from", "--dry-run", *_WHERE}, set()),
    "port-forward": ({"--namespace"}, set()),
    "rollout": ({"--namespace"}, set()),
    "drain": (set(), {"--ignore-daemonsets", "--delete-emptydir-data"}),
}


@dataclass(frozen=True)
class Line:
    """A parsed command: its verb, its words, and its flags in the given order."""

    program: str
    verb: str
    words: list[str]
    flags: list[tuple[str, str]]

    def all(self, *names: str) -> list[str]:
        """Return every value of a flag, by any of its names."""
        return [value for name, value in self.flags if name in names]

    @property
    def namespace(self) -> str:
        return next(iter(self.all("-n", "--namespace")), "default")


def parse(command: str) -> Line:
    """
    Take *command* apart.

    Raises:
        AssertionError: a verb or a flag is not known, or lacks its value.
    """
    program, *words = shlex.split(command)
    table = {"kn": KN, "kubectl": KUBECTL}[program]
    verb = " ".join(words[: 2 if program == "kn" else 1])
    assert verb in table, f"{command}: {program} has no verb {verb!r}"
    valued, plain = table[verb]
    found, flags, rest = [], list[tuple[str, str]](), iter(words[len(verb.split()) :])
    for word in rest:
        name, separator, value = word.partition("=")
        if not word.startswith("-") or word == "-":
            found.append(word)
        elif name in plain:
            assert not separator, f"{command}: {name} takes no value"
            flags.append((name, ""))
        else:
            assert name in valued, f"{command}: {verb} has no flag {name}"
            given = value if separator else next(rest, None)
            assert given is not None, f"{command}: {name} wants a value"
            flags.append((name, given))
    return Line(program, verb, found, flags)
