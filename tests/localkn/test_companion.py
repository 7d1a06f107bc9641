"""The program beside a platform, and the ports of its instances' metrics."""

import json
import socket
import urllib.request

from tests.localkn.running import Running, eventually, needs_envoy

pytestmark = needs_envoy


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def test_it_shows_the_platform_and_comes_back(platform: Running) -> None:
    """It is told of at the start and in the status, knows the autoscaling, and is started again where it ends."""
    started = platform.up("--dashboard-port", "0", "--env-override", "front:METRICS_PORT=9464")
    url = json.loads(platform.run("status", "--json").stdout)["dashboard"]
    assert f"dashboard at {url}/_dashboard" in started.stdout
    labels = 'k8s_namespace_name="default",kn_configuration_name="front",kn_revision_name="front-00001",kn_service_name="front"'
    assert f"kn_revision_pods_count{{{labels}}} 1.0" in read(f"{url}/metrics")

    (process,) = [p for p in platform.processes() if p.cmdline()[1:3] == ["-m", "dashboard"]]
    process.kill()
    process.wait(5)
    eventually(lambda: any(p.cmdline()[1:3] == ["-m", "dashboard"] for p in platform.processes()))
    assert f"kn_revision_pods_count{{{labels}}} 1.0" in read(f"{url}/metrics")

    env = json.loads(read(f"http://127.0.0.1:{platform.port}/"))["env"]
    (front,), (back,) = platform.instances("front"), platform.instances("back")
    assert env["METRICS_PORT"] == str(front["metrics_port"]) != "9464"
    assert back["metrics_port"] is None


def test_a_taken_port_is_no_obstacle(platform: Running) -> None:
    """It takes a free one and says which; metrics that are switched off stay off."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        started = platform.up("--dashboard-port", port, "--env-override", "front:METRICS_PORT=0")
    assert "dashboard at http://127.0.0.1:" in started.stdout
    assert f":{port}/" not in started.stdout
    assert platform.instances("front")[0]["metrics_port"] is None
