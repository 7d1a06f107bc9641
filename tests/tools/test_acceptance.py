"""The acceptance checks: their requests to a cluster, their token file, and their findings on a pipeline with faults."""

import copy
import json
import re
import ssl
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.http_server import HttpHandler, HttpServer
from tests.knative.command_lines import parse
from tools.acceptance.checks import Acceptance, LoadPace
from tools.acceptance.deployments import Address, ClusterDeployment
from tools.cli.verbs import main
from tools.deployment.credentials import read_token
from tools.deployment.kubectl import KubectlError

pytestmark = pytest.mark.may_block

ITEMS = [{"item_id": f"item_{n}", "score": 1} for n in range(5)]

SERVICE: dict[str, Any] = {
    "spec": {
        "template": {
            "metadata": {
                "annotations": {"autoscaling.knative.dev/min-scale": "1", "autoscaling.knative.dev/max-scale": "5"}
            }
        }
    },
    "status": {
        "conditions": [{"type": "Ready", "status": "True"}],
        "traffic": [{"revisionName": "rank-items-00002", "percent": 100}, {"revisionName": "rank-items-00001"}],
        "url": "https://recommend.shop.example.com",
    },
}


def pod(name: str, *, ready: str = "True", ending: bool = False) -> dict[str, Any]:
    metadata = {"name": name} | ({"deletionTimestamp": "2026-11-22T20:00:00Z"} if ending else {})
    return {"metadata": metadata, "status": {"conditions": [{"type": "Ready", "status": ready}]}}


def program(path: Path, answers: dict[str, Any]) -> str:
    """Write a command that answers by the words it is given, fails for others, and records its arguments."""
    path.write_text(
        "#!/usr/bin/env python3\nimport json, shlex, sys\n"
        f"line = shlex.join(sys.argv[1:])\nopen({str(path) + '.log'!r}, 'a').write(line + '\\n')\n"
        f"found = [text for words, text in {answers!r}.items() if words in line]\n"
        "sys.exit('no such thing') if not found else print(found[0])\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def cluster(tmp_path: Path) -> ClusterDeployment:
    pods = {"items": [pod("a"), pod("b", ready="False"), pod("c", ending=True), pod("d")]}
    kubectl = {
        "get pods": json.dumps(pods),
        "delete pod": "deleted",
        "get broker": "http://broker-ingress.knative-eventing.svc.cluster.local/default/default",
    }
    return ClusterDeployment(
        "default",
        kubectl=[program(tmp_path / "kubectl", kubectl)],
        kn=[program(tmp_path / "kn", {"describe": json.dumps(SERVICE), "update": ""})],
        broker="http://127.0.0.1:8082",
    )


def test_instances_are_ready_pods_of_serving_revisions(cluster, tmp_path):
    """The instances are the pods that are ready, not ending, and of a revision with traffic."""
    assert cluster.instances("rank-items") == ["a", "d"]
    (asked,) = (tmp_path / "kubectl.log").read_text().splitlines()
    assert "--namespace default" in asked
    assert "revision in (rank-items-00002)" in asked


@pytest.mark.parametrize(
    ("before", "restored"),
    [
        ({}, "--annotation autoscaling.knative.dev/target- "),
        ({"target": "3"}, "--annotation-revision autoscaling.knative.dev/target=3 "),
    ],
)
def test_the_scale_check_restores_the_target(tmp_path, before, restored):
    """The check lowers the target of rank-items, and sets the former one again even if the check fails."""
    service = copy.deepcopy(SERVICE)
    annotations = service["spec"]["template"]["metadata"]["annotations"]
    annotations |= {f"autoscaling.knative.dev/{name}": value for name, value in before.items()}
    kn = program(tmp_path / "kn", {"describe": json.dumps(service), "update": ""})
    deployment = ClusterDeployment("default", kubectl=["false"], kn=[kn], broker=None)
    pace = LoadPace(callers=1, load_s=0.1)
    acceptance = Acceptance(
        deployment, Address("http://127.0.0.1:9", "x"), token=None, pace=pace, users=["user_1"], tell=print
    )
    with closing(acceptance), pytest.raises(KubectlError):
        acceptance.scale()
    lowered, restore = [line for line in (tmp_path / "kn.log").read_text().splitlines() if "update" in line]
    assert {parse(f"kn {line}").verb for line in (lowered, restore)} == {"service update"}
    assert "autoscaling.knative.dev/target=0.1 " in lowered
    assert restored in restore


def test_commands_for_kn_are_valid(cluster, tmp_path):
    """The arguments passed to kn form a command that kn accepts."""
    cluster.kn.update("rank-items", "--annotation-revision", "recsys.dev/accepted-at=1")
    (asked,) = (tmp_path / "kn.log").read_text().splitlines()
    assert parse(f"kn {asked}").verb == "service update"


def test_the_broker_is_reached_at_the_given_address(cluster):
    """Requests to the broker go to the given address under the broker's cluster name."""
    found = cluster.broker()
    assert found == Address(
        "http://127.0.0.1:8082/default/default", "broker-ingress.knative-eventing.svc.cluster.local"
    )


def test_kubectl_errors_are_passed_on(tmp_path):
    """The error contains kubectl's own message, or says that kubectl does not run."""
    refusing = ClusterDeployment("default", kubectl=[program(tmp_path / "kubectl", {})], kn=["false"], broker=None)
    with pytest.raises(KubectlError, match="no such thing"):
        refusing.broker()
    with pytest.raises(KubectlError, match="cannot run /nowhere/kubectl"):
        ClusterDeployment("default", kubectl=["/nowhere/kubectl"], kn=["false"], broker=None).broker()


def test_a_gateway_with_tls_is_asked_for_recommend(tmp_path, capsys):
    """The handshake and the Host header name recommend, and the certificate must be for that name."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("recommend.shop.test").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    Answering.said = {"user_id": "user_42", "recommendations": ITEMS}
    kn = program(tmp_path / "kn", {"describe": json.dumps(SERVICE)})
    words = ["acceptance", "answer", "--namespace", "shop", "--kn", kn, "--ca-file", str(tmp_path / "ca.pem")]
    with HttpServer(Answering) as server:
        server.use_tls(context)
        gateway = ["--gateway", f"https://127.0.0.1:{server.server_port}"]
        assert main([*words, *gateway, "--host", "recommend.shop.test"]) == 0
        assert main([*words, *gateway, "--host", "other.shop.test"]) == 1
    assert "certificate verify failed" in capsys.readouterr().err


def test_a_name_without_a_gateway_is_the_address(tmp_path, free_port, capsys):
    """The finding names the address that did not answer."""
    kn = program(tmp_path / "kn", {"describe": json.dumps(SERVICE)})
    words = ["acceptance", "answer", "--namespace", "shop", "--kn", kn, "--host", f"127.0.0.1:{free_port}"]
    assert main(words) == 1
    assert f"FAILS  answer: https://127.0.0.1:{free_port}: ConnectError: " in capsys.readouterr().err


class FakePlatform:
    """A platform that never scales and never replaces an instance. An ended instance stays if it is the only one."""

    def __init__(self, tmp_path: Path, url: str) -> None:
        described = program(tmp_path / "fake-kn", {"describe": json.dumps(SERVICE), "update": ""})
        self.kn = ClusterDeployment("default", kubectl=["false"], kn=[described], broker=None).kn
        self.url = url
        self.ended: list[str] = []
        self.count = 1

    def instances(self, service: str) -> list[str]:
        names = [f"{service}-{number + 1}" for number in range(self.count)]
        return [name for name in names if name not in self.ended or self.count == 1]

    def terminate(self, instance: str) -> None:
        self.ended.append(instance)

    def broker(self) -> Address:
        return Address(self.url, "broker")


class Answering(HttpHandler):
    """Give every request the same answer."""

    said: dict[str, Any]

    def post(self) -> None:
        self.body()
        self.answer(200, json.dumps(self.said, separators=(",", ":")).encode())


@pytest.fixture
def fake(tmp_path: Path) -> FakePlatform:
    return FakePlatform(tmp_path, "")


@pytest.fixture
def acceptance(fake: FakePlatform) -> Iterator[Acceptance]:
    """Yield acceptance checks of a pipeline that always returns the same recommendations."""
    Answering.said = {"user_id": "user_42", "recommendations": ITEMS}
    pace = LoadPace(callers=2, load_s=1.0, shrink_s=0.5, event_s=0.3)
    with HttpServer(Answering) as server:
        fake.url = f"{server.url}/"
        target = Address(fake.url, "recommend")
        with closing(Acceptance(fake, target, token="t", pace=pace, users=["user_1"], tell=lambda _: None)) as checks:
            yield checks


def test_a_complete_answer_passes_and_a_degraded_one_fails(acceptance):
    """The check of an answer fails when the answer is degraded."""
    assert acceptance.answer().holds
    Answering.said = {**Answering.said, "degraded": ["ranking"]}
    assert not acceptance.answer().holds


def test_an_interaction_without_effect_is_found(acceptance):
    """The check fails when the item of an interaction is still recommended."""
    finding = acceptance.interaction()
    assert not finding.holds
    assert "item_0 is still recommended" in finding.seen


def test_a_reply_that_is_not_an_event_is_found(acceptance):
    """The check of a reply fails when the answer is not an event."""
    assert not acceptance.reply().holds


def test_a_missing_scale_out_is_found(acceptance):
    """The check of scaling fails when the number of instances does not change."""
    finding = acceptance.scale()
    assert not finding.holds
    assert finding.seen.startswith("instances: 1 after")
    assert " 0 of " in finding.seen


def test_the_load_lasts_until_the_work_under_it_is_done(acceptance):
    """The update takes longer than the load's time; callers continue until it ends, so the check holds."""
    acceptance.pace = LoadPace(callers=2, load_s=0.0, shrink_s=0.5, event_s=0.3)
    finding = acceptance.update()
    assert finding.holds
    assert "; 0 of" in finding.seen


def test_a_missing_replacement_is_found(acceptance):
    """The check of a kill fails when no new instance appears."""
    with pytest.raises(TimeoutError, match="extract-features-1 of extract-features was not replaced"):
        acceptance.end()


def test_an_instance_that_is_not_needed_gets_no_replacement(acceptance, fake):
    """If the Service still has its least number of instances, a scale-in met the end of the instance."""
    fake.count = 2
    finding = acceptance.end()
    assert finding.holds
    assert fake.ended == ["extract-features-2", "rank-items-2", "recommend-2"]


def test_degraded_answers_under_load_are_failures(acceptance, fake):
    """A degraded answer is a failure during an update, and during the end of one instance of several."""
    Answering.said = {**Answering.said, "degraded": ["ranking"]}
    fake.count = 2
    for finding in (acceptance.update(), acceptance.end()):
        assert not finding.holds
        assert "first failure: 200" in finding.seen


def test_answers_may_be_degraded_while_the_only_instance_is_replaced(acceptance, fake, monkeypatch):
    """The end of a function's only instance may degrade answers; the finding counts them."""
    Answering.said = {**Answering.said, "degraded": ["features"]}
    monkeypatch.setattr(fake, "instances", lambda service: [f"{service}-{fake.ended.count(f'{service}-0')}"])
    finding = acceptance.end()
    assert finding.holds
    assert re.search(
        r"0 of \d+ requests failed .*; [1-9]\d* were degraded, as a function had one instance", finding.seen
    )


def test_a_missing_platform_is_an_error(tmp_path, capsys):
    """The program exits with 1 and a message when no platform is running."""
    assert main(["acceptance", "--state-dir", str(tmp_path), "ready"]) == 1
    assert capsys.readouterr().err


def test_the_first_valid_token_is_sent(tmp_path: Path) -> None:
    """The file has the form of the functions' own: comments and expired tokens do not count."""
    path = tmp_path / "token"
    path.write_text("# rotated\nold 2020-01-01T00:00:00Z\nnew 2999-01-01T00:00:00Z # ours\nother\n")
    assert read_token(path) == "new"
    assert read_token(None) is None


@pytest.mark.parametrize("content", ["", "\n", "# none\n", "old 2020-01-01T00:00:00Z\n"])
def test_a_file_without_a_token_is_an_error(tmp_path: Path, content: str, capsys, monkeypatch) -> None:
    """Both commands name the file."""
    path = tmp_path / "token"
    path.write_text(content)
    words = ["--token-file", str(path), "--state-dir", str(tmp_path)]
    monkeypatch.setattr("tools.acceptance.verb._door", lambda *_, **__: None)
    for command in (["acceptance"], ["rollout", "rank-items", "--env", "A=1"]):
        assert main([*command, *words]) == 1
        assert f"{path}: has no valid token" in capsys.readouterr().err
