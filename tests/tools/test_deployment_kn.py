"""Commands for kn, and the interpretation of its answers."""

import copy
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.knative.command_lines import parse
from tools.cli.options import counts, share
from tools.deployment.kn import Kn, KnError, kn_of, tagged, traffic, url_of

# A Service on a cluster whose candidate has a tenth of the traffic.
SERVICE: dict[str, Any] = {
    "metadata": {"name": "rank-items", "generation": 8},
    "spec": {
        "traffic": [
            {"latestRevision": True, "percent": 10, "tag": "candidate"},
            {"latestRevision": False, "revisionName": "rank-items-00007", "percent": 90},
        ]
    },
    "status": {
        "observedGeneration": 8,
        "latestReadyRevisionName": "rank-items-00008",
        "traffic": [
            {
                "latestRevision": True,
                "revisionName": "rank-items-00008",
                "percent": 10,
                "tag": "candidate",
                "url": "http://c",
            },
            {"latestRevision": False, "revisionName": "rank-items-00007", "percent": 90},
        ],
    },
}


@pytest.fixture
def kn(tmp_path, monkeypatch):
    """Install a kn that shows the given Services in order, repeats the last, and refuses `broken`."""
    monkeypatch.setattr("tools.deployment.kn._AGAIN_S", 0)
    program = tmp_path / "kn"
    program.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/told\n'
        'case "$*" in *broken*) echo "Error: no such service" >&2; exit 1;; esac\n'
        f'case "$*" in *describe*) cd {tmp_path}; cat shown.0; [ ! -f shown.1 ] || mv shown.1 shown.0;; esac\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def make(*shown: dict[str, Any]) -> Kn:
        for number, each in enumerate(shown):
            (tmp_path / f"shown.{number}").write_text(json.dumps(each))
        return Kn([str(program)], namespace="recsys")

    return make


def test_route_waits_until_the_cluster_reports_the_shares(kn, tmp_path):
    """The tool asks again until the status shows this generation and the requested shares."""
    stale, moving = copy.deepcopy(SERVICE), copy.deepcopy(SERVICE)
    stale["status"]["observedGeneration"] = 7
    moving["status"]["traffic"][0]["percent"] = 0
    tool = kn(stale, moving)
    (tmp_path / "shown.0").write_text(json.dumps(moving))
    (tmp_path / "shown.1").write_text(json.dumps(SERVICE))
    tool.route("rank-items", {"candidate": 10, "rank-items-00007": 90})
    first, *rest = (tmp_path / "told").read_text().splitlines()
    assert first == (
        "service update rank-items --traffic candidate=10 --traffic rank-items-00007=90 --no-wait --namespace recsys"
    )
    assert rest == ["service describe rank-items -o json --namespace recsys"] * 2
    assert tool.said == [f"kn {first}"]
    assert parse(tool.said[0]).namespace == "recsys"


def test_traffic_that_does_not_move_is_an_error(kn, monkeypatch):
    """The tool raises an error when its time to wait is over."""
    monkeypatch.setattr("tools.deployment.kn._SETTLE_S", 0)
    stale = copy.deepcopy(SERVICE)
    stale["status"]["observedGeneration"] = 7
    with pytest.raises(KnError, match="has not moved within"):
        kn(stale).route("rank-items", {"@latest": 100})


def test_errors_of_kn_are_passed_on(kn, tmp_path):
    """The error contains kn's own message, or says that kn does not run."""
    with pytest.raises(KnError, match="no such service"):
        kn().update("broken")
    with pytest.raises(KnError, match="does not run"):
        Kn([str(tmp_path / "nowhere")]).service("x")


def test_the_traffic_of_a_service_is_read():
    """Shares are added up by revision, and tags are listed by name."""
    service = copy.deepcopy(SERVICE)
    service["status"]["traffic"].append({"revisionName": "rank-items-00007", "tag": "current", "url": "http://p"})
    assert traffic(service) == {"rank-items-00008": 10, "rank-items-00007": 90}
    assert {tag: target["url"] for tag, target in tagged(service).items()} == {
        "candidate": "http://c",
        "current": "http://p",
    }


def test_flags_are_parsed():
    """Shares may be percentages, steps are numbers, and a namespace selects the cluster's kn, not the local one."""
    assert (share("0.1%"), share("0.05"), counts("5,25%,100")) == (0.001, 0.05, "5,25,100")
    for text in ("5", "-1%", "x", "nan"):
        with pytest.raises(typer.BadParameter, match="is not a share"):
            share(text)
    assert kn_of("kn --context prod", "recsys", Path("x")) == Kn(["kn", "--context", "prod"], "recsys")
    assert kn_of("kn", None, Path("/tmp/x")).command[1:] == ["-m", "localkn", "kn", "--state-dir", "/tmp/x/platform"]


HTTPS = {
    "status": {
        "url": "https://recommend.shop.test",
        "address": {"url": "http://recommend.shop.svc.cluster.local"},
        "traffic": [{"tag": "candidate", "url": "https://candidate-recommend.shop.test"}],
    }
}


@pytest.mark.parametrize(
    ("tag", "gateway", "url"),
    [
        (None, None, "https://recommend.shop.test"),
        ("candidate", None, "https://candidate-recommend.shop.test"),
        (None, "https://127.0.0.1", "https://recommend.shop.test"),
        (None, "http://127.0.0.1", "http://recommend.shop.svc.cluster.local"),
        ("candidate", "http://127.0.0.1", "http://candidate-recommend.shop.svc.cluster.local"),
    ],
)
def test_a_gateway_without_tls_is_asked_for_names_inside_the_cluster(tag, gateway, url):
    """Such a gateway redirects public names with HTTPS."""
    assert url_of(HTTPS, tag, gateway=gateway) == url
