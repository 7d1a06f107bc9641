"""
`./run.sh grafana`: show the running pipeline in a local Prometheus and Grafana, with the dashboard of the manifests.

Prometheus reads the metrics of the pipeline's own dashboard every two seconds and has the recording rules and alerts of
`knative/monitoring`. Everything that the two programs write is in `grafana/` of the state directory.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from localkn.address import dashboard_url
from localkn.errors import LocalknError
from localkn.processes import free_port

MONITORING = Path(__file__).parents[1] / "knative/monitoring"
_SCRAPE = "2s"
_POLL_S = 0.5
# Programs that may be called, and where their packages are.
_PACKAGES = {
    "prometheus": "the package prometheus of the distribution",
    "grafana": "the package grafana of its maker's repository (grafana.com, Installation)",
}
# Folders of the files that Grafana serves; without any of them, Grafana looks beside its program.
_HOMES = ("/usr/share/grafana", "/opt/homebrew/share/grafana", "/usr/local/share/grafana")


def grafana(*, port: int, state_dir: Path) -> int:
    """Start both programs and wait for Ctrl-C; return the exit status."""
    programs = {name: shutil.which(name) for name in _PACKAGES}
    if missing := [f"{name}: not installed; install {_PACKAGES[name]}" for name, path in programs.items() if not path]:
        print("\n".join(missing), file=sys.stderr)
        return 1
    try:
        target = dashboard_url(state_dir / "platform").removeprefix("http://")
    except LocalknError as error:
        print(error, file=sys.stderr)
        return 1
    folder, prometheus_port = (state_dir / "grafana").absolute(), free_port()
    write_prometheus(folder, target=target)
    write_grafana(folder, prometheus_port=prometheus_port)
    running: list[subprocess.Popen[bytes]] = []
    with (folder / "log").open("wb") as log:
        try:
            running.append(subprocess.Popen(prometheus_command(folder, port=prometheus_port), stderr=log))
            server = [str(programs["grafana"]), "server", *_homepath()]
            settings = os.environ | grafana_environment(folder, port=port)
            running.append(subprocess.Popen(server, env=settings, stdout=log))
            print(
                f"Grafana: http://127.0.0.1:{port}/d/recsys-pipeline; Prometheus: http://127.0.0.1:{prometheus_port}",
                flush=True,
            )
            return _await_end(running, folder / "log")
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()


def write_prometheus(folder: Path, *, target: str) -> None:
    """Write the configuration of a Prometheus that reads *target*, with the rules of the manifests, into *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    rules = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    job = {"job_name": "localkn", "honor_labels": True, "static_configs": [{"targets": [target]}]}
    times = {"scrape_interval": _SCRAPE, "scrape_timeout": _SCRAPE, "evaluation_interval": _SCRAPE}
    _write(folder / "prometheus.yml", {"global": times, "rule_files": ["rules.yaml"], "scrape_configs": [job]})


def prometheus_command(folder: Path, *, port: int) -> Sequence[str]:
    """Return the command of a Prometheus with the configuration in *folder*."""
    return (
        "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    )  # fmt: skip


def write_grafana(folder: Path, *, prometheus_port: int) -> None:
    """Write the data source and the dashboard for a Grafana into *folder*."""
    provisioning, dashboards = folder / "provisioning", folder / "dashboards"
    for path in (provisioning / "datasources", provisioning / "dashboards", dashboards):
        path.mkdir(parents=True, exist_ok=True)
    source = {
        "name": "Prometheus", "type": "prometheus", "access": "proxy", "isDefault": True,
        "url": f"http://127.0.0.1:{prometheus_port}", "jsonData": {"timeInterval": _SCRAPE},
    }  # fmt: skip
    _write(provisioning / "datasources/prometheus.yaml", {"apiVersion": 1, "datasources": [source]})
    provider = {"name": "recsys", "type": "file", "options": {"path": str(dashboards)}}
    _write(provisioning / "dashboards/recsys.yaml", {"apiVersion": 1, "providers": [provider]})
    shutil.copyfile(MONITORING / "dashboard.json", dashboards / "recsys.json")


def grafana_environment(folder: Path, *, port: int) -> Mapping[str, str]:
    """Return the settings of a Grafana on loopback whose page needs no login."""
    return {
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_PATHS_DATA": str(folder / "grafana-data"),
        "GF_PATHS_LOGS": str(folder / "grafana-logs"),
        "GF_PATHS_PROVISIONING": str(folder / "provisioning"),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    }


def _write(path: Path, content: object) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def _homepath() -> Sequence[str]:
    found = next((home for home in _HOMES if Path(home).is_dir()), None)
    return ("--homepath", found) if found else ()


def _await_end(running: Sequence[subprocess.Popen[bytes]], log: Path) -> int:
    """Return 0 after Ctrl-C, and 1 if a program ends."""
    try:
        while all(process.poll() is None for process in running):
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        return 0
    print(f"a program ended; {log} gives the reason", file=sys.stderr)
    return 1
