"""The dashboard that a platform starts, and the metrics ports of its instances."""

import json
import socket
import urllib.request

from tests.localkn.running import Running, needs_envoy
from tests.waiting import LIMIT_S, eventually

pytestmark = needs_envoy


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:
        return str(answer.read().decode())


def test_the_dashboard_shows_the_platform_and_restarts(platform: Running) -> None:
    """`up` and the status name the dashboard's URL, its metrics show the autoscaling, and it restarts after a crash."""
    started = platform.up("--dashboard-port", "0", "--env-override", "front:METRICS_PORT=9464")
    url = json.loads(platform.run("status", "--json").stdout)["dashboard"]
    assert f"dashboard at {url}/_dashboard" in started.stdout
    labels = 'k8s_namespace_name="default",kn_configuration_name="front",kn_revision_name="front-00001",kn_service_name="front"'

    def shows_front() -> bool:
        # The page looks at the platform once a second, so it may be older than `up`.
        return f"kn_revision_pods_count{{{labels}}} 1.0" in read(f"{url}/metrics")

    eventually(shows_front)

    (process,) = [p for p in platform.processes() if p.cmdline()[1:3] == ["-m", "kndashboard"]]
    process.kill()
    process.wait(LIMIT_S)
    eventually(lambda: any(p.cmdline()[1:3] == ["-m", "kndashboard"] for p in platform.processes()))
    eventually(shows_front)

    env = json.loads(read(f"http://127.0.0.1:{platform.port}/"))["env"]
    (front,), (back,) = platform.instances("front"), platform.instances("back")
    assert env["METRICS_PORT"] == str(front["metrics_port"]) != "9464"
    assert back["metrics_port"] is None


def test_the_dashboard_avoids_a_taken_port(platform: Running) -> None:
    """The dashboard takes a free port and reports it; an instance with disabled metrics gets no metrics port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        started = platform.up("--dashboard-port", port, "--env-override", "front:METRICS_PORT=0")
    assert "dashboard at http://127.0.0.1:" in started.stdout
    assert f":{port}/" not in started.stdout
    assert platform.instances("front")[0]["metrics_port"] is None
