"""Every command in the how-to pages for operators, held against the manifests, kn's flags and our own."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
import yaml

from kubeyaml.validation import service_faults
from tests.knative.command_lines import Line, parse
from tests.knative.objects import KNATIVE, ROOT, Object, changed_by_kn, container, environment, overlay, services
from tests.knative.rules import MADE_ELSEWHERE
from tools.acceptance.checks import FUNCTIONS
from tools.cli.verbs import app
from tools.images.builder import IMAGES

pytestmark = pytest.mark.may_block

HOW_TO = ROOT / "docs/how-to"
RUNBOOK = [HOW_TO / name for name in ("run-on-a-cluster.md", "roll-out.md", "alerts.md", "retrain.md")]
OVERLAYS = {"recsys": "prod", "default": "dev"}
# Objects that an installation of Knative creates.
INSTALLED = {
    "knative-serving": {
        "config-network",
        "config-domain",
        "config-certmanager",
        "config-features",
        "config-observability",
        "autoscaler",
        "controller",
    },
    "knative-eventing": {"broker-ingress"},
    "kourier-system": {"kourier-internal", "3scale-kourier-gateway"},
}


def commands() -> Iterator[str]:
    """Yield every command of a shell block, split at pipes, and every kn or kubectl command in a sentence."""
    text = "\n".join(page.read_text() for page in RUNBOOK)
    for inline in re.findall(r"(?<!`)`((?:kn|kubectl) [^`]+)`", text):
        yield inline.replace("REVISION", "recommend-00001").replace("NAME", "rank-items")
    for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield from (part.strip() for part in line.split(" | "))


def lines(program: str) -> list[str]:
    return [command for command in commands() if shlex.split(command)[0] == program]


def objects_of(line: Line) -> list[Object]:
    return overlay(OVERLAYS[line.namespace])


def names(objects: list[Object]) -> set[str]:
    return {body["metadata"]["name"] for body in objects}


def test_every_command_is_of_a_checked_program():
    """Shell blocks contain only commands of programs that a test below checks."""
    known = {"kn", "kubectl", "curl", "./run.sh"}
    assert {shlex.split(command)[0] for command in commands()} == known


@pytest.mark.parametrize("command", lines("kn"))
def test_kn_commands_are_valid(command):
    """kn knows the verb and the flags, and the manifests contain the Services, revisions and namespaces."""
    line = parse(command)
    there = services(objects_of(line))
    named = [*line.words, *line.all("-s", "--service", "--prune")]
    assert [name for name in named if re.sub(r"-\d{5}$", "", name) not in there] == []


def updates() -> list[str]:
    return [command for command in lines("kn") if parse(command).verb == "service update"]


@pytest.mark.parametrize("command", updates())
def test_updates_make_valid_services(command):
    """The updated manifest is valid and has known variables, this project's images and shares that add up to 100 %."""
    line = parse(command)
    (name,) = line.words
    objects = objects_of(line)
    service = services(objects)[name]
    read = environment(service, objects).keys()
    assert {value.split("=")[0] for value in line.all("--env", "-e", "--env-value-from")} <= read
    for image in line.all("--image"):
        assert _image_name(image) == _image_name(container(service)["image"])
    changed = changed_by_kn(service, command)
    assert service_faults(changed) == []
    for value in line.all("--env-value-from"):
        _, secret, key = value.split("=")[1].split(":")
        assert (secret, key) in secrets_made(line.namespace)


def _image_name(image: str) -> str:
    return re.sub(r"[:@].*", "", image.rpartition("/")[2])


def secrets_made(namespace: str) -> set[tuple[str, str]]:
    """Return every Secret that the runbook creates, with its keys."""
    made = set()
    for command in lines("kubectl"):
        line = parse(command)
        if line.verb == "create" and line.namespace == namespace and line.words[0] == "secret":
            assert line.words[1] == "generic"
            made |= {(line.words[2], value.split("=")[0]) for value in line.all("--from-file")}
    return made


def test_the_secrets_of_production_are_created():
    """The runbook creates every Secret that production refers to, with the key or file that is read."""
    objects, wanted = overlay("prod"), set()
    for service in services(objects).values():
        for entry in container(service).get("env") or ():
            if reference := entry.get("valueFrom", {}).get("secretKeyRef"):
                wanted.add((reference["name"], reference["key"]))
        mounts = {mount["name"]: mount["mountPath"] for mount in container(service).get("volumeMounts") or ()}
        tokens = Path(environment(service, objects).get("AUTH_TOKENS_FILE", "-"))
        for volume in service["spec"]["template"]["spec"].get("volumes") or ():
            if secret := volume.get("secret"):
                assert tokens.parent == Path(mounts[volume["name"]])
                wanted.add((secret["secretName"], tokens.name))
    assert {name for name, _ in wanted} == MADE_ELSEWHERE["prod"]
    assert wanted <= secrets_made("recsys")


def jobs_made() -> set[str]:
    """Return the jobs that the runbook creates, each from a CronJob of a component."""
    made = {line.words[1]: line.all("--from") for line in map(parse, lines("kubectl")) if line.words[:1] == ["job"]}
    crons = {
        f"cronjob/{body['metadata']['name']}"
        for path in (KNATIVE / "components").glob("*/*.yaml")
        for body in yaml.safe_load_all(path.read_text())
        if body and body.get("kind") == "CronJob"
    }
    assert {each for given in made.values() for each in given} <= crons
    return made.keys() | {each.rpartition("/")[2] for each in crons}


@pytest.mark.parametrize("command", lines("kubectl"))
def test_kubectl_commands_are_valid(command):
    """
    kubectl knows the verb and the flags, files exist, and named objects are in the manifests or created elsewhere.
    """
    line = parse(command)
    for path in line.all("-k", "-f", "--patch-file"):
        assert path == "-" or (ROOT / path).exists(), path
    for path in line.all("-k"):
        assert path == "knative/monitoring" or overlay(Path(path).name)
    for patch in line.all("--patch"):
        assert set(json.loads(patch)) == {"spec" if "hpa" in line.words else "data"}
    if line.namespace in INSTALLED:
        assert {word.rpartition("/")[2] for word in line.words} & INSTALLED[line.namespace]
        return
    objects = objects_of(line)
    for selector in line.all("-l", "--selector"):
        key, _, value = selector.partition("=")
        assert value in ({"recsys"} if key == "app.kubernetes.io/part-of" else services(objects)), selector
    if line.verb in {"delete", "logs"} and line.words:
        name = line.words[-1].rpartition("/")[2]
        assert name in names(objects) | {line.namespace} | jobs_made() | MADE_ELSEWHERE.get(
            OVERLAYS[line.namespace], set()
        )


@pytest.mark.parametrize("command", lines("./run.sh"))
def test_commands_of_run_sh_are_valid(command, tmp_path, monkeypatch):
    """The verb exists, its own parser accepts the flags, and the manifests contain the named Service."""
    (tmp_path / "tokens").touch()
    (tmp_path / "knative").symlink_to(KNATIVE)
    monkeypatch.chdir(tmp_path)
    _, verb, *words = shlex.split(command)
    options = typer.main.get_group(app).commands[verb].make_context(verb, words).params
    if "namespace" not in options:
        return
    there = services(overlay(OVERLAYS[options["namespace"]]))
    if verb == "rollout":
        assert options["service"] in there
        assert {_image_name(image) for image in options["image"] or ()} <= IMAGES.keys()
    else:
        assert set(FUNCTIONS) <= there.keys()


def test_every_alert_has_a_section():
    """Each alert has a heading of its name in the runbook, and each heading has an alert."""
    rules = [
        rule["alert"]
        for path in KNATIVE.glob("monitoring/*rules.yaml")
        for group in yaml.safe_load(path.read_text())["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    headings = re.findall(r"^## (.+)$", (HOW_TO / "alerts.md").read_text(), flags=re.MULTILINE)
    assert len(headings) == len({*headings}) > 0
    assert sorted(headings) == sorted(rules)


@pytest.mark.parametrize(
    "command",
    ["kn service roll x", "kn service update x --scale-up 3", "kn service update x --image", "kubectl get --no-wait=1"],
)
def test_an_invalid_command_is_noticed(command):
    """The parser refuses unknown verbs and flags, and flags without their value."""
    with pytest.raises(AssertionError):
        parse(command)
