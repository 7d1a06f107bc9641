"""The configuration of Prometheus and Grafana for a local pipeline."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tools.grafana import MONITORING, grafana, grafana_environment, write_grafana, write_prometheus

pytestmark = pytest.mark.may_block

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


@needs_promtool
def test_prometheus_accepts_the_configuration(tmp_path: Path):
    """promtool finds no fault in the configuration and in the rules, and the target is the pipeline's dashboard."""
    write_prometheus(tmp_path, target="127.0.0.1:8081")
    checked = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert "rules found" in checked.stdout
    (job,) = yaml.safe_load((tmp_path / "prometheus.yml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8081"]}]


def test_grafana_gets_the_data_source_and_the_dashboard(tmp_path: Path):
    """The data source is that Prometheus, the dashboard is the project's, and Grafana listens on loopback alone."""
    write_grafana(tmp_path, prometheus_port=9999)
    (source,) = yaml.safe_load((tmp_path / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://127.0.0.1:9999")
    (provider,) = yaml.safe_load((tmp_path / "provisioning/dashboards/recsys.yaml").read_text())["providers"]
    (dashboard,) = Path(provider["options"]["path"]).iterdir()
    assert json.loads(dashboard.read_text()) == json.loads((MONITORING / "dashboard.json").read_text())
    settings = grafana_environment(tmp_path, port=3000)
    assert (settings["GF_SERVER_HTTP_ADDR"], settings["GF_PATHS_PROVISIONING"]) == (
        "127.0.0.1",
        str(tmp_path / "provisioning"),
    )


def test_missing_programs_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Without the programs, the verb names them with their packages and starts nothing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert grafana(port=3000, state_dir=tmp_path / "state") == 1
    said = capsys.readouterr().err
    assert "prometheus: not installed; install the package prometheus" in said
    assert "grafana: not installed" in said
    assert not (tmp_path / "state").exists()


def test_a_pipeline_must_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """With the programs but without a pipeline, the verb says how to start one."""
    for name in ("prometheus", "grafana"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert grafana(port=3000, state_dir=tmp_path / "state") == 1
    assert "nothing is running in" in capsys.readouterr().err


def test_prometheus_ends_if_grafana_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nothing of a start that failed stays behind."""
    for name, content in (("prometheus", f"#!/bin/sh\nexec {shutil.which('sleep')} 60\n"), ("grafana", "")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tools.grafana.dashboard_url", lambda _: "http://127.0.0.1:1")
    started: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, *arguments, **options) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    with pytest.raises(OSError, match="Exec format error"):
        grafana(port=3000, state_dir=tmp_path / "state")
    assert [process.poll() is not None for process in started] == [True]
