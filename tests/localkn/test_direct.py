"""`--direct`: manifests become processes that reach each other, and `down` leaves none of them."""

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

from localkn import control
from localkn.errors import RefusedError
from tests.localkn.running import Running
from tests.running import killed_at_the_end, read_until
from tests.waiting import LIMIT_S, eventually


def answer(port: int) -> dict[str, Any]:
    with urlopen(f"http://127.0.0.1:{port}/", timeout=LIMIT_S) as response:
        return json.load(response)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def direct(module_platform: Running) -> Running:
    """Start the sample with --direct."""
    done = module_platform.up("--direct", "--env-override", "front:EXTRA=1=2")
    assert done.returncode == 0, done.stderr
    assert "PodMonitor front: ignored" in done.stdout
    assert f"front is ready at http://127.0.0.1:{module_platform.port}" in done.stdout
    return module_platform


def test_instances_get_the_manifests_configuration(direct: Running) -> None:
    """An instance gets its environment and arguments, the URLs of other Services, and the reserved variables."""
    front = answer(direct.port)["env"]
    assert (front["PORT"], front["K_SERVICE"]) == (str(direct.port), "front")
    assert (front["K_REVISION"], front["K_CONFIGURATION"]) == ("front-00001", "front")
    assert (front["EXTRA"], front["FROM_IMAGE"]) == ("1=2", "yes")
    assert "CPU_LIMIT" not in front
    back = answer(int(front["BACK_URL"].removeprefix("http://127.0.0.1:").removesuffix("/path")))
    assert (back["env"]["K_SERVICE"], back["env"]["LEVEL"], back["env"]["CPU_LIMIT"]) == ("back", "11", "1.5")
    assert back["argv"] == ["--greeting", "hello"]


def test_every_process_listens_on_loopback(direct: Running) -> None:
    """No process listens on an address that another machine can reach."""
    listening = {c.laddr.ip for p in direct.processes() for c in p.net_connections("inet")}
    assert listening == {"127.0.0.1"}


def test_status_and_logs_show_each_service(direct: Running) -> None:
    """The status is available as JSON and as a table, and the logs can be filtered by Service."""
    assert json.loads(direct.run("status", "--json").stdout)["services"]["front"]["ready"]
    row = next(line for line in direct.run("status").stdout.splitlines() if "front-00001" in line)
    assert row.split()[1:4] == ["100", "%", "1/1"]
    assert "starting back-00001" in direct.run("logs", "back").stdout
    assert "front-00001" not in direct.run("logs", "back").stdout


def test_a_direct_instance_cannot_be_updated(direct: Running) -> None:
    """An update is refused because no new instance can take over; an update of an unknown Service is refused too."""
    assert "with --direct nothing can take over" in direct.kn("service", "update", "front", "--env", "A=B").stderr
    place = direct.state.socket("control")
    for service, reason in (({}, "no such Service"), ({"metadata": {"name": "front"}}, "spec: is missing")):
        with pytest.raises(RefusedError, match=reason):
            control.call(place, "apply", service=service, wait_s=0)


def test_logs_can_be_followed_across_a_crash(direct: Running) -> None:
    """A crashed process restarts on its port, and the followed log continues with its output."""
    command = [sys.executable, "-m", "localkn", "logs", "--state-dir", str(direct.state.root), "-f", "front"]
    (before,) = direct.instances()
    with killed_at_the_end(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as follower:
        assert follower.stdout is not None
        first = follower.stdout.readline()
        psutil.Process(before["pid"]).kill()
        second = follower.stdout.readline()
        follower.send_signal(signal.SIGINT)
        assert follower.wait(LIMIT_S) == 130
    assert first == f"{before['name']} | starting {before['name']}\n"
    assert second == "front-00001-3 | starting front-00001-3\n"
    eventually(lambda: [i["port"] for i in direct.instances()] == [direct.port])
    assert answer(direct.port)["env"]["LOCALKN_POD"] == "front-00001-3"


def test_down_stops_everything_and_can_be_repeated(direct: Running) -> None:
    """`down` stops every process, and a second `down` finds nothing to stop. This is the last test of its platform."""
    assert direct.run("down").stdout == "stopped\n"
    assert direct.processes() == []
    again = direct.run("down")
    assert (again.returncode, again.stdout) == (0, "nothing was running\n")
    assert direct.run("status").returncode == 1


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
def test_a_service_that_does_not_become_ready_stops_the_platform(
    platform: Running, variable: str, deadline: str, message: str
) -> None:
    """`up` names the Service and the reason, prints the end of its log, and leaves no process running."""
    limit = f'annotations: {{serving.knative.dev/progress-deadline: {deadline}, autoscaling.knative.dev/min-scale: "1",'
    platform.edit('annotations: {autoscaling.knative.dev/min-scale: "1",', limit)
    done = platform.up("--direct", "--env-override", f"back:{variable}")
    assert done.returncode == 1
    assert message in done.stderr
    assert "    starting back-00001-" in done.stderr
    assert platform.processes() == []


def test_no_process_survives_a_killed_supervisor(platform: Running) -> None:
    """The instances and their children end too, and the next `up` starts normally."""
    wrapper = platform.directory / "commands.yaml"
    sample = json.dumps(str(platform.commands.parent))
    wrapped = 'command: [/bin/sh, -c, "sleep 600 & exec \\"$0\\" app.py", python]'.replace("python", sys.executable)
    wrapper.write_text(f"root: {sample}\nimages: {{sample: {{{wrapped}}}}}\n")
    platform.commands = wrapper
    assert platform.up("--direct").returncode == 0
    assert len([p for p in platform.processes() if p.name() == "sleep"]) == 2
    platform.supervisor().kill()
    eventually(lambda: platform.processes() == [])
    assert platform.up("--direct").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_foreground_platform_stops_on_a_signal(platform: Running, number: signal.Signals) -> None:
    """SIGINT and SIGTERM stop the instances, and the platform exits with status 0."""
    with killed_at_the_end(platform.foreground("--direct", stdout=subprocess.PIPE)) as process:
        read_until(process.stdout, "is ready at")
        process.send_signal(number)
        assert process.wait(LIMIT_S) == 0
    assert platform.processes() == []


def test_a_platform_can_be_stopped_while_it_starts(platform: Running) -> None:
    """SIGTERM stops a platform that is not ready yet, with exit status 0."""
    with killed_at_the_end(platform.foreground("--direct", "--env-override", "READY_AFTER_S=60")) as process:
        eventually(lambda: list(platform.state.logs.glob("*.log")))
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
    assert platform.processes() == []


def test_volumes_become_directories(platform: Running) -> None:
    """ConfigMaps and Secrets become files, and a value that starts with a mountPath is rewritten to their directory."""
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


def test_processes_of_the_platform_inherit_a_raised_limit(platform: Running) -> None:
    """A shell's soft limit of 256 does not reach the supervisor or the instances that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        done = platform.up("--direct")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert done.returncode == 0, done.stderr
    instance = next(process for process in platform.processes() if process.pid == platform.instances()[0]["pid"])
    for process in (platform.supervisor(), instance):
        assert process.rlimit(resource.RLIMIT_NOFILE)[0] == min(hard, 65_536)
