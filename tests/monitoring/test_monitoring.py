"""Code, docs, dashboard, rules and monitors name the same things."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboard.definitions import DEFINITIONS as PLATFORM
from kubeyaml.manifests import load
from recsys.metrics import DEFINITIONS
from tests.monitoring.promql import MONITORING, ROOT, alerts, metrics_of, panels, rules
from tools import grafana_dashboard, metrics_page

PROMTOOL = shutil.which("promtool")
# What prometheus_client exposes of every process.
PROCESS = {"process_cpu_seconds_total", "process_resident_memory_bytes"}


def known() -> set[str]:
    """Every series that exists: of the functions, of the platform, of a process, and what is recorded."""
    names = set(PROCESS) | {rule["record"] for rule in rules() if "record" in rule}
    for definition in (*DEFINITIONS, *PLATFORM):
        suffixes = ("_bucket", "_sum", "_count") if definition.kind == "histogram" else ("",)
        names |= {definition.name + suffix for suffix in suffixes}
    return names


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ('sum by (a, b) (rate(m_total{x=~"y"}[5m])) > 0', {"m_total"}),
        ("service:m:ratio / on (pod) group_left (x) (n_sum unless o) or 0 * p", {"service:m:ratio", "n_sum", "o", "p"}),
        ("histogram_quantile(0.99, sum by (le) (rate(h_bucket[$__rate_interval]))) > 1e3", {"h_bucket"}),
        ('absent(up{job="rate(x)"})', {"up"}),
    ],
)
def test_names_are_found_in_queries(query: str, names: set[str]):
    """Functions, labels, ranges and keywords are no metrics."""
    assert metrics_of(query) == names


def test_every_metric_that_is_named_exists():
    """In panels, recorded rules and alerts alike."""
    named = {(title, name) for title, query in panels() for name in metrics_of(query)}
    named |= {(rule.get("alert") or rule["record"], name) for rule in rules() for name in metrics_of(rule["expr"])}
    assert {(where, name) for where, name in named if name not in known()} == set()
    assert len(named) > 60


def test_every_metric_of_the_functions_is_looked_at():
    """A metric that no panel and no rule names is measured for nobody."""
    named = {name for _, query in panels() for name in metrics_of(query)}
    named |= {name for rule in rules() for name in metrics_of(rule["expr"])}
    base = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} | named
    assert {d.name for d in DEFINITIONS} - base == set()


def test_generated_files_are_up_to_date():
    """The page of metrics and the dashboard are what their definitions say."""
    assert metrics_page.render() == metrics_page.PAGE.read_text("utf-8")
    assert grafana_dashboard.render() == grafana_dashboard.FILE.read_text("utf-8")


def test_what_is_generated_can_be_checked_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """--check tells of a stale file; without it the file is written."""
    for tool, name in ((metrics_page, "PAGE"), (grafana_dashboard, "FILE")):
        file = tmp_path / name
        file.write_text("old")
        monkeypatch.setattr(tool, name, file)
        assert tool.main(["--check"]) == 1
        assert tool.main([]) == 0
        assert tool.main(["--check"]) == 0


def test_panels_fit_the_grid():
    """No two panels overlap, none is wider than the dashboard, ids are their own."""
    shown = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in shown}) == len(shown)
    taken: set[tuple[int, int]] = set()
    for panel in shown:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_the_tutorials_four_are_in_the_docs():
    """Request counter, processing latency, error counter and queue depth, each beside one of ours."""
    rows = re.findall(r"^\| `(ray_serve_\w+)` \| `(\w+)`", metrics_page.PAGE.read_text(), re.MULTILINE)
    assert [theirs.rpartition("deployment_")[2] for theirs, _ in rows] == [
        "request_counter", "processing_latency_ms", "error_counter", "queued_queries"
    ]  # fmt: skip
    assert {ours for _, ours in rows} <= {d.name for d in DEFINITIONS}


@pytest.mark.parametrize("name", alerts())
def test_an_alert_tells_what_to_do(name: str):
    """It has a severity, a sentence, and a section in the runbook; and a test of its firing and of its silence."""
    alert = alerts()[name]
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert alert["annotations"]["summary"]
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^## (\w+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert name in headings
    assert anchor == name.lower()
    tests = yaml.safe_load((MONITORING / "rules_test.yaml").read_text())["tests"]
    checks = [check for test in tests for check in test.get("alert_rule_test", ()) if check["alertname"] == name]
    assert [bool(check["exp_alerts"]) for check in checks] == [True, False]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (package prometheus)")
@pytest.mark.parametrize("verb", [("check", "rules", "rules.yaml"), ("test", "rules", "rules_test.yaml")])
def test_promtool_agrees(tmp_path: Path, verb: tuple[str, ...]):
    """The rules can be read, and fire when they should."""
    body = yaml.safe_load((MONITORING / "rules.yaml").read_text())
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(body["spec"]))
    shutil.copy(MONITORING / "rules_test.yaml", tmp_path)
    ended = subprocess.run(["promtool", *verb], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "SUCCESS" in ended.stdout


def monitors() -> dict[str, dict[str, Any]]:
    bodies = yaml.safe_load_all((MONITORING / "pod-monitors.yaml").read_text())
    return {body["metadata"]["name"]: body["spec"] for body in bodies}


def test_monitors_find_the_pods():
    """By labels that the Services put on their pods; on the ports the functions use and the policy leaves open."""
    door = yaml.safe_load((ROOT / "knative/components/event-door/recommend-events.yaml").read_text())
    services = [resource.body for resource in load(ROOT / "knative/base") if resource.is_service] + [door]
    wanted = monitors()["recsys-functions"]["selector"]["matchLabels"]
    for service in services:
        assert wanted.items() <= service["spec"]["template"]["metadata"]["labels"].items()
    settings = (ROOT / "knative/components/shared-config/kustomization.yaml").read_text()
    (endpoint,) = monitors()["recsys-functions"]["podMetricsEndpoints"]
    port = endpoint["relabelings"][0]["replacement"].removeprefix("$1:")
    assert f"METRICS_PORT={port}" in settings
    policy = yaml.safe_load((ROOT / "knative/base/network-policy.yaml").read_text())
    scraped = [rule for rule in policy["spec"]["ingress"] if "monitoring" in str(rule["from"])]
    assert [each["port"] for each in scraped[0]["ports"]] == [int(port), 9091]
    (of_autoscaler,) = monitors()["recsys-autoscaler"]["podMetricsEndpoints"]
    kept = of_autoscaler["metricRelabelings"]
    assert set(kept[1]["regex"].split("|")) == {service["metadata"]["name"] for service in services}
    names = [d.name for d in PLATFORM if d.functions == "autoscaler"]
    assert all(re.fullmatch(kept[0]["regex"], name) for name in names)


def test_the_kustomization_takes_what_is_there():
    """Every file it names is in the folder."""
    body = yaml.safe_load((MONITORING / "kustomization.yaml").read_text())
    files = [*body["resources"], *(file for each in body["configMapGenerator"] for file in each["files"])]
    assert all((MONITORING / file).is_file() for file in files)
