"""Code, docs, dashboard, rules and monitors use the same names."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kndashboard.definitions import DEFINITIONS as PLATFORM
from kubeyaml.documents import read_trusted
from kubeyaml.manifests import load
from recsys.metrics import DEFINITIONS
from tests.monitoring.promql import MONITORING, ROOT, alerts, metrics_of, panels, rules
from tools.reference import metrics

PROMTOOL = shutil.which("promtool")
# Metrics that prometheus_client exposes for every process.
PROCESS = {"process_cpu_seconds_total", "process_resident_memory_bytes"}


def known() -> set[str]:
    """Return every series of the functions, the platform and the process, and every recorded one."""
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
    """Functions, labels, ranges and keywords are not metrics."""
    assert metrics_of(query) == names


def test_every_named_metric_exists():
    """Panels, recorded rules and alerts name only existing metrics."""
    named = {(title, name) for title, query in panels() for name in metrics_of(query)}
    named |= {(rule.get("alert") or rule["record"], name) for rule in rules() for name in metrics_of(rule["expr"])}
    existing = known()
    assert {(where, name) for where, name in named if name not in existing} == set()
    assert len(named) > 60


def test_every_metric_is_used():
    """Every metric of the functions is in a panel or a rule."""
    named = {name for _, query in panels() for name in metrics_of(query)}
    named |= {name for rule in rules() for name in metrics_of(rule["expr"])}
    base = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} | named
    assert {d.name for d in DEFINITIONS} - base == set()


def test_panels_fit_the_grid():
    """No two panels overlap, none exceeds the width of the dashboard, and ids are unique."""
    shown = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in shown}) == len(shown)
    taken: set[tuple[int, int]] = set()
    for panel in shown:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_the_tutorials_metrics_are_documented():
    """The docs list the tutorial's request counter, latency, error counter and queue depth beside the metrics here."""
    rows = re.findall(r"^\| `(ray_serve_\w+)` \| `(\w+)`", metrics.render(), re.MULTILINE)
    assert [theirs.rpartition("deployment_")[2] for theirs, _ in rows] == [
        "request_counter", "processing_latency_ms", "error_counter", "queued_queries"
    ]  # fmt: skip
    assert {ours for _, ours in rows} <= {d.name for d in DEFINITIONS}


@pytest.mark.parametrize("name", alerts())
def test_an_alert_is_documented_and_tested(name: str):
    """Each alert has a severity, a summary, a section in the runbook, and tests of firing and of silence."""
    alert = alerts()[name]
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert alert["annotations"]["summary"]
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^## (\w+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert name in headings
    assert anchor == name.lower()
    tests = read_trusted(MONITORING / "rules_test.yaml")["tests"]
    checks = [check for test in tests for check in test.get("alert_rule_test", ()) if check["alertname"] == name]
    fires, *quiet = (bool(check["exp_alerts"]) for check in checks)
    assert (fires, set(quiet)) == (True, {False})


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (package prometheus)")
@pytest.mark.parametrize("verb", [("check", "rules", "rules.yaml"), ("test", "rules", "rules_test.yaml")])
def test_promtool_accepts_the_rules(tmp_path: Path, verb: tuple[str, ...]):
    """The rules are valid and pass their tests."""
    body = yaml.safe_load((MONITORING / "rules.yaml").read_text())
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(body["spec"]))
    shutil.copy(MONITORING / "rules_test.yaml", tmp_path)
    ended = subprocess.run(["promtool", *verb], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "SUCCESS" in ended.stdout


def monitors() -> dict[str, dict[str, Any]]:
    bodies = yaml.safe_load_all((MONITORING / "pod-monitors.yaml").read_text())
    return {body["metadata"]["name"]: body["spec"] for body in bodies}


def test_monitors_match_the_pods():
    """The monitors select the Services' pod labels and use ports that the functions open and the policy allows."""
    door = yaml.safe_load((ROOT / "knative/components/event-door/recommend-events.yaml").read_text())
    services = [resource.body for resource in load(ROOT / "knative/base") if resource.is_service] + [door]
    wanted = monitors()["recsys-functions"]["selector"]["matchLabels"]
    for service in services:
        assert wanted.items() <= service["spec"]["template"]["metadata"]["labels"].items()
    settings = (ROOT / "knative/components/shared-config/kustomization.yaml").read_text()
    (endpoint,) = monitors()["recsys-functions"]["podMetricsEndpoints"]
    port = endpoint["relabelings"][0]["replacement"].removeprefix("$1:")
    assert f"METRICS_PORT={port}" in settings
    policy = yaml.safe_load((ROOT / "knative/components/network-policy/network-policy.yaml").read_text())
    scraped = [rule for rule in policy["spec"]["ingress"] if "monitoring" in str(rule["from"])]
    assert [each["port"] for each in scraped[0]["ports"]] == [int(port), 9091]
    (of_autoscaler,) = monitors()["recsys-autoscaler"]["podMetricsEndpoints"]
    kept = of_autoscaler["metricRelabelings"]
    assert set(kept[1]["regex"].split("|")) == {service["metadata"]["name"] for service in services}
    names = [d.name for d in PLATFORM if d.functions == "autoscaler"]
    assert all(re.fullmatch(kept[0]["regex"], name) for name in names)


def test_the_kustomization_names_existing_files():
    """Every file that the kustomization names exists."""
    body = yaml.safe_load((MONITORING / "kustomization.yaml").read_text())
    files = [*body["resources"], *(file for each in body["configMapGenerator"] for file in each["files"])]
    assert all((MONITORING / file).is_file() for file in files)
