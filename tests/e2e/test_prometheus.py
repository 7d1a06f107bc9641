"""A real Prometheus on a running pipeline: the series of every rule and panel exist."""

import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from localkn.processes import free_port
from recsys.experiments.declaration import Arm, Experiment
from tests.demo import DemoState
from tests.e2e.verbs import started, verb
from tests.localkn.running import needs_envoy
from tests.monitoring.promql import alerts, metrics_of, panels
from tests.running import CLIENT, ROOT
from tests.waiting import eventually
from tools.grafana import prometheus_command, write_prometheus

PROGRAM = shutil.which("prometheus")
pytestmark = [
    pytest.mark.scenario,
    pytest.mark.alone,
    pytest.mark.may_block,
    pytest.mark.timeout(400),
    needs_envoy,
    pytest.mark.skipif(
        PROGRAM is None, reason="prometheus is not installed; install it, for example with: apt-get install prometheus"
    ),
]

LOAD_S = 30
SCRAPES = 12
LOAD = [sys.executable, "-m", "tools.bench.closed_loop", "--seconds", str(LOAD_S)]


class Prometheus:
    """The Prometheus of `./run.sh grafana`, which scrapes one address every two seconds."""

    def __init__(self, folder: Path, target: str) -> None:
        write_prometheus(folder, target=target)
        port = free_port()
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(prometheus_command(folder, port=port), stderr=log)
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20)

    def is_ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def ask(self, path: str, **parameters: str) -> Any:
        answer = self._client.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, query: str) -> list[float]:
        """Return the values of an instant query, without those that are not a number."""
        found = [float(each["value"][1]) for each in self.ask("query", query=query)["result"]]
        return [value for value in found if not math.isnan(value)]

    def end(self) -> None:
        self._client.close()
        self.process.terminate()
        self.process.wait(20)


def act_on_an_exposure(url: str) -> None:
    """Send an interaction that names the exposure to which it belongs."""
    event = {"ce-id": "1", "ce-source": "/s", "ce-specversion": "1.0", "ce-type": "dev.recsys.interaction.v1"}
    data = {"user_id": "user_1", "kind": "view", "item_id": "item_1", "exposure_id": "x1"}
    assert CLIENT.post(url, json=data, headers=event).status_code == 202


@pytest.fixture(scope="module")
def prometheus(demo_state: DemoState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Yield a Prometheus after half a minute of valid and invalid requests, interactions and undeliverable events."""
    state = tmp_path_factory.mktemp("state")
    demo_state.copy_to(state)
    # The metric of an arm exists from the start on. Hardly any user is in the experiment.
    arms = (Arm("control", 0.5), Arm("other", 0.5, url=f"http://127.0.0.1:{free_port()}"))
    experiment = msgspec.json.encode([Experiment("rare", arms, share=1e-9)]).decode()
    settings = (
        # On a busy machine a request may take longer than the default budget of 1 s.
        "REQUEST_TIMEOUT_S=8",
        f"recommend:K_SINK=http://127.0.0.1:{free_port()}",
        "extract-features:EXPOSURES=on",
        f"recommend:EXPERIMENTS={experiment}",
    )
    overrides = [word for each in settings for word in ("--env-override", each)]
    with ExitStack() as stack:
        port = stack.enter_context(started(state, "--simulate-latency", *overrides))
        status = json.loads(verb("status", "--json", "--state-dir", str(state)).stdout)
        server = Prometheus(tmp_path_factory.mktemp("prometheus"), status["dashboard"].removeprefix("http://"))
        stack.callback(server.end)
        eventually(server.is_ready)
        features = int(status["services"]["extract-features"]["url"].rpartition(":")[2])
        loads = [
            stack.enter_context(subprocess.Popen([*LOAD, *words], cwd=ROOT, stdout=subprocess.PIPE))
            for words in (
                ["--port", str(port), "--callers", "10", "--pause-ms", "50"],
                ["--port", str(features), "--callers", "1", "--pause-ms", "100", "--work", "interactions"],
            )
        ]
        until = time.monotonic() + LOAD_S - 2
        while time.monotonic() < until:
            assert CLIENT.post(f"http://127.0.0.1:{port}", json={"user_id": 5}).status_code == 422
            act_on_an_exposure(f"http://127.0.0.1:{features}")
            time.sleep(0.5)
        eventually(lambda: server.values("count_over_time(up[5m])")[0] >= SCRAPES)
        yield server
        assert [json.loads(load.communicate()[0])["first_error"] for load in loads] == ["", ""]


def test_every_scrape_succeeded(prometheus: Prometheus):
    """Every scrape since the start succeeded."""
    assert prometheus.values("min_over_time(up[5m])") == [1]
    (target,) = prometheus.ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


def test_every_panel_has_data(prometheus: Prometheus):
    """Every query of the dashboard returns a number."""
    empty = []
    for title, query in panels():
        for variable, value in {"$__rate_interval": "20s", "$namespace": ".*", "$service": ".*"}.items():
            query = query.replace(variable, value)  # noqa: PLW2901 - as Grafana does
        if not prometheus.values(query):
            empty.append((title, query))
    assert empty == []


def test_every_rule_has_data(prometheus: Prometheus):
    """No rule fails, every recorded series and every metric of an alert exists, and no alert pages."""
    evaluated = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {(rule["name"], rule["health"]) for rule in evaluated if rule["health"] != "ok"} == set()
    named = {name for rule in alerts().values() for name in metrics_of(rule["expr"])}
    named |= {rule["name"] for rule in evaluated if rule["type"] == "recording"}
    assert {name for name in named if not prometheus.ask("query", query=name)["result"]} == set()
    pages = [rule["name"] for rule in evaluated if rule.get("labels", {}).get("severity") == "page"]
    firing = {alert["labels"]["alertname"] for alert in prometheus.ask("alerts")["alerts"]}
    assert firing.isdisjoint(pages)
