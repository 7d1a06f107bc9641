"""`--direct`: manifests become processes, wired to each other, and nothing is left of them."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

from tests.localkn.running import Running, eventually


def answer(port: int) -> dict[str, Any]:
    with urlopen(f"http://127.0.0.1:{port}/", timeout=10) as response:
        return json.load(response)  # type: ignore[no-any-return]


def test_instances_get_what_the_manifest_says(platform: Running) -> None:
    """Environment, arguments, URLs of other Services and the reserved variables reach the process."""
    done = platform.up("--direct", "--env-override", "front:EXTRA=1=2")
    assert done.returncode == 0, done.stderr
    assert "NetworkPolicy closed: ignored" in done.stdout
    assert f"front is ready at http://127.0.0.1:{platform.port}" in done.stdout
    front = answer(platform.port)["env"]
    assert (front["PORT"], front["K_SERVICE"]) == (str(platform.port), "front")
    assert (front["K_REVISION"], front["K_CONFIGURATION"]) == ("front-00001", "front")
    assert (front["EXTRA"], front["FROM_IMAGE"]) == ("1=2", "yes")
    assert "CPU_LIMIT" not in front
    back = answer(int(front["BACK_URL"].removeprefix("http://127.0.0.1:").removesuffix("/path")))
    assert (back["env"]["K_SERVICE"], back["env"]["LEVEL"], back["env"]["CPU_LIMIT"]) == ("back", "11", "1.5")
    assert back["argv"] == ["--greeting", "hello"]
    assert {connection.laddr.ip for p in platform.processes() for connection in p.net_connections("inet")} == {
        "127.0.0.1"
    }
    assert json.loads(platform.run("status", "--json").stdout)["services"]["front"]["ready"]
    assert platform.kn("service", "update", "front", "--env", "A=B").returncode == 1
    assert "starting back-00001" in platform.run("logs", "back").stdout
    assert "front-00001" not in platform.run("logs", "back").stdout
    assert platform.run("down").stdout == "stopped\n"
    assert platform.processes() == []
    again = platform.run("down")
    assert (again.returncode, again.stdout) == (0, "nothing was running\n")
    assert platform.run("status").returncode == 1


def test_a_crashed_instance_is_replaced(platform: Running) -> None:
    """A process that ends is started again, on its port."""
    assert platform.up("--direct").returncode == 0
    (before,) = platform.instances()
    psutil.Process(before["pid"]).kill()
    eventually(lambda: [i["pid"] for i in platform.instances()] not in ([], [before["pid"]]))
    assert answer(platform.port)["env"]["K_SERVICE"] == "front"


@pytest.mark.parametrize(
    ("variable", "deadline", "message"),
    [
        (
            "CRASH=7",
            "30s",
            "Service back: revision back-00001 failed: its instances end before they are ready: exit code 7",
        ),
        ("READY_AFTER_S=60", "1s", "Service back: revision back-00001 failed: not ready within 1 s"),
    ],
)
def test_a_service_that_does_not_become_ready_stops_everything(
    platform: Running, variable: str, deadline: str, message: str
) -> None:
    """`up` says which and why, with the end of its log, and leaves nothing running."""
    limit = f'annotations: {{serving.knative.dev/progress-deadline: {deadline}, autoscaling.knative.dev/min-scale: "1",'
    platform.edit('annotations: {autoscaling.knative.dev/min-scale: "1",', limit)
    done = platform.up("--direct", "--env-override", f"back:{variable}")
    assert done.returncode == 1
    assert message in done.stderr
    assert "    starting back-00001-" in done.stderr
    assert platform.processes() == []


def test_a_taken_port_is_one_sentence(platform: Running) -> None:
    """Nothing is started when the public port is not free."""
    with socket.create_server(("127.0.0.1", platform.port)):
        done = platform.up("--direct", detach=False)
    assert (done.returncode, done.stderr) == (1, f"port {platform.port} is taken; choose another with --port\n")


def test_a_second_platform_in_a_state_directory_is_refused(platform: Running) -> None:
    """The running one goes on."""
    assert platform.up("--direct").returncode == 0
    done = platform.up("--direct")
    assert done.returncode == 1
    assert "already running in" in done.stderr
    assert platform.status()["ready"]


def test_nothing_outlives_a_killed_supervisor(platform: Running) -> None:
    """Not the instances, not what they started; the next `up` starts clean."""
    wrapper = platform.directory / "commands.yaml"
    sample = json.dumps(str(platform.commands.parent))
    wrapped = 'command: [/bin/sh, -c, "sleep 600 & exec \\"$0\\" app.py", python]'.replace("python", sys.executable)
    wrapper.write_text(f"root: {sample}\nimages: {{sample: {{{wrapped}}}}}\n")
    platform.commands = wrapper
    assert platform.up("--direct").returncode == 0
    assert len([p for p in platform.processes() if p.name() == "sleep"]) == 2
    platform.supervisor().kill()
    eventually(lambda: platform.processes() == [], within_s=3)
    assert platform.up("--direct").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_foreground_platform_stops_cleanly_when_told(platform: Running, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end instances and exit with 0."""
    command = [sys.executable, "-m", "localkn", "up", "--state-dir", str(platform.state.root), "--direct"]
    command += ["--manifests", str(platform.manifests), "--commands", str(platform.commands)]
    with subprocess.Popen([*command, "--port", str(platform.port)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "is ready at" not in process.stdout.readline():
            pass
        process.send_signal(number)
        assert process.wait(20) == 0
    assert platform.processes() == []


def test_logs_can_be_followed(platform: Running) -> None:
    """What an instance writes later is printed as it comes, also of instances that start later."""
    assert platform.up("--direct").returncode == 0
    command = [sys.executable, "-m", "localkn", "logs", "--state-dir", str(platform.state.root), "-f", "front"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        first = follower.stdout.readline()
        psutil.Process(platform.instances()[0]["pid"]).kill()
        second = follower.stdout.readline()
        follower.send_signal(signal.SIGINT)
        follower.wait(10)
    assert first == "front-00001-1 | starting front-00001-1\n"
    assert second.startswith("front-00001-3 | starting")


def test_volumes_become_directories(platform: Running) -> None:
    """ConfigMaps and Secrets are files, and a value that starts with their mountPath points to them."""
    platform.edit(
        "          args: [--greeting",
        "          volumeMounts: [{name: files, mountPath: /etc/files}, {name: tmp, mountPath: /scratch}]\n"
        "          args: [--greeting",
    )
    platform.edit(
        "      containers:\n        - image: registry.example.com/acme/sample@",
        "      volumes:\n        - name: tmp\n          emptyDir: {}\n        - name: files\n"
        "          projected: {sources: [{configMap: {name: settings}}, {secret: {name: key, items: [{key: k, path: d/k}]}}]}\n"
        "      containers:\n        - image: registry.example.com/acme/sample@",
    )
    platform.edit(
        "value: hello}", "value: /etc/files/d/k}, {name: PLACE, value: /scratch}, {name: S, value: /etc/filesystem}"
    )
    with platform.manifests.open("a") as manifests:
        manifests.write("---\n{apiVersion: v1, kind: Secret, metadata: {name: key}, data: {k: c2VjcmV0}}\n")
    done = platform.up("--direct")
    assert done.returncode == 0, done.stderr
    back = answer(int(platform.status("back")["url"].rpartition(":")[2]))
    assert Path(back["env"]["GREETING"]).read_text() == "secret"
    assert (Path(back["env"]["GREETING"]).parent.parent / "LEVEL").read_text() == "11"
    assert Path(back["env"]["PLACE"]).is_dir()
    assert back["env"]["S"] == "/etc/filesystem"
    assert back["argv"][1] == back["env"]["GREETING"]
    platform.run("down")
    assert not Path(back["env"]["PLACE"]).exists()
