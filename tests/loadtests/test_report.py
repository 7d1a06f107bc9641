"""The recorded figures, their limits, and the report."""

import importlib
import io
import json
import re
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from chassis.environment import SettingsError
from loadtests.answers import AnswerVerdict
from loadtests.limits import RunLimits, verdict
from loadtests.phases import SHAPES
from loadtests.progress import Progress
from loadtests.recorder import PlatformSample, Recorder
from loadtests.target import service_figures


@pytest.fixture(scope="module")
def report() -> ModuleType:
    """
    Return the module loadtests.report.

    It imports matplotlib, which takes a second. Every worker of a test run imports this file, and one needs the module.
    """
    return importlib.import_module("loadtests.report")


def rank_items_scale(ready: float, desired: float) -> dict[str, dict[str, float]]:
    return {"rank-items": {"ready": ready, "desired": desired, "concurrency": 2.5, "memory_mb": 60.0}}


def record(*, fault: str | None = None, wrong: bool = False, cpu: float = 30.0) -> Recorder:
    """Record ten seconds of ten answers each in 10 ms, and one failure if requested."""
    recorder = Recorder()
    for second in range(10):
        recorder.samples.append(
            PlatformSample(second + 0.1, 4, rank_items_scale(1 + (second > 4), 1 + (second > 2)), cpu, 50.0)
        )
        for number in range(10):
            recorder.note("returning", AnswerVerdict(batch=1 + number % 2), at_s=second + number / 10, latency_s=0.010)
        recorder.note("mistake", AnswerVerdict(), at_s=second + 0.5, latency_s=5.0)
    if fault:
        recorder.note("event", AnswerVerdict(fault, wrong=wrong), at_s=3.3, latency_s=0.002)
    return recorder


def result_of(recorder: Recorder, limits: RunLimits | None = None, **run) -> dict[str, Any]:
    result = recorder.result(duration_s=10)
    result["run"] = {
        "shape": "spike", "loop": "closed", "users": 4, "rate": None, "think_s": 0, "duration_s": 10.0, "began": "today",
        "url": "http://127.0.0.1:8080", "histories_known": 1000, "events": True, "platform_seen": True, **run,
    }  # fmt: skip
    outcomes = (limits or RunLimits()).outcomes(result["summary"])
    result["limits"] = [asdict(each) | {"holds": each.holds} for each in outcomes]
    result["verdict"] = verdict(result)
    return result


def test_figures_are_kept_per_second():
    """Each second has its own requests and quantiles, which exclude the latency of refused requests."""
    result = result_of(record())
    assert result["seconds"]["rps"] == [11] * 10
    assert result["seconds"]["p99_ms"] == pytest.approx([10.0] * 10)
    assert result["summary"]["requests"] == 110
    assert result["summary"]["rps"] == 11.0
    assert result["summary"]["p99_ms"] == pytest.approx(10.0)
    assert result["batches"] == {1: 50, 2: 50}


def test_a_second_without_answers_has_no_latency():
    """A second without answers counts zero requests and has no latency."""
    recorder = Recorder()
    for second in (0, 2):
        recorder.note("returning", AnswerVerdict(), at_s=second, latency_s=0.001)
    series = recorder.result(duration_s=3)["seconds"]
    assert series["rps"] == [1, 0, 1]
    assert series["p50_ms"][1] is None


def test_instances_are_recorded_over_time():
    """The data shows the scale-out: ready instances follow the desired number."""
    columns = result_of(record())["platform"]["services"]["rank-items"]
    assert columns["ready"] == [1, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    assert columns["desired"] == [1, 1, 1, 2, 2, 2, 2, 2, 2, 2]


def test_a_successful_run_has_a_one_line_verdict():
    """If every limit holds, the verdict is PASS with the figures and the scale-out."""
    said = result_of(record())["verdict"]
    assert said.startswith("PASS: 110 requests at 11 a second, p50 10 ms, p99 10 ms, 0 failed")
    assert said.endswith("rank-items 1 to 2 instances")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"max_p99_ms": 9.0}, "MAX_P99_MS 10 instead of <= 9"),
        ({"max_p50_ms": 9.0}, "MAX_P50_MS 10 instead of <= 9"),
        ({"min_rps": 12.0}, "MIN_RPS 11 instead of >= 12"),
    ],
)
def test_a_broken_limit_is_named(limits, name):
    """The verdict is FAIL with the limit and the measured value."""
    assert f"FAIL: {name}. " in result_of(record(), RunLimits(**limits))["verdict"]


def test_one_wrong_answer_fails_the_run():
    """A wrong answer breaks its own limit even when many failures are allowed."""
    result = result_of(record(fault="scores not in descending order", wrong=True), RunLimits(max_fail_ratio=0.5))
    assert result["verdict"].startswith("FAIL: MAX_WRONG_ANSWERS 1 instead of <= 0.")
    assert result["faults"] == [{"kind": "event", "fault": "scores not in descending order", "count": 1}]


def test_a_run_without_an_answer_fails():
    """A run without any answer counts as failed, not as free of failures."""
    assert Recorder().result(duration_s=1)["summary"]["fail_ratio"] == 1.0
    assert not RunLimits().outcomes(Recorder().result(duration_s=1)["summary"])[0].holds


def test_degraded_answers_have_a_limit():
    """A run with too many degraded answers breaks MAX_DEGRADED_RATIO."""
    recorder = Recorder()
    for number in range(10):
        recorder.note("returning", AnswerVerdict(degraded=number == 0), at_s=0, latency_s=0.001)
    assert "MAX_DEGRADED_RATIO 0.1" in result_of(recorder)["verdict"]


def test_limits_come_from_the_environment():
    """Each limit is set by the variable of its name, and the others keep their defaults."""
    limits = RunLimits.from_env(
        {"MAX_FAIL_RATIO": "0.02", "MAX_P99_MS": "250", "MIN_RPS": "40", "MAX_WRONG_ANSWERS": "1"}
    )
    assert limits == RunLimits(max_fail_ratio=0.02, max_p99_ms=250.0, min_rps=40.0, max_wrong_answers=1)


def test_invalid_limits_are_reported_together():
    """The error lists every invalid limit."""
    with pytest.raises(SettingsError) as caught:
        RunLimits.from_env({"MAX_FAIL_RATIO": "2", "MIN_RPS": "fast"})
    assert len(caught.value.faults) == 2


def test_every_limit_is_documented():
    """The page about load tests names every limit with its default."""
    page = (Path(__file__).parents[2] / "docs/reference/load-tests.md").read_text()
    for name, default in asdict(RunLimits()).items():
        assert re.search(rf"`{name.upper()}` \| {default:g} \|", page), name
    for shape, described in SHAPES.items():
        assert re.search(rf"`{shape}` \| {described.default_s:g} s \|", page), shape


def test_the_report_is_self_contained(tmp_path, report):
    """The report is one file with its pictures, loads nothing, and contains its data."""
    result = result_of(record(fault="</script><b>", wrong=True))
    page = report.write_report(result, tmp_path / "report").read_text()
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    assert page.count("<svg") == page.count("<figure") == 8
    assert "<b>" not in page
    embedded = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert embedded is not None
    assert json.loads(embedded[1]) == json.loads(json.dumps(result))
    assert json.loads((tmp_path / "report/report.json").read_text())["verdict"] == result["verdict"]


def test_pictures_are_well_formed(report):
    """Every picture is a valid SVG with searchable text."""
    page = report.render(result_of(record()))
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == 7
    for svg in pictures:
        root = ET.fromstring(svg)
        assert [text for text in root.iter("{http://www.w3.org/2000/svg}text") if text.text]


def test_a_remote_platform_has_no_instance_pictures(report):
    """Without the platform's status the report leaves out the pictures of instances and says so."""
    recorder = record()
    recorder.samples = [PlatformSample(s.elapsed_s, s.wanted, {}, s.cpu_percent, 50.0) for s in recorder.samples]
    result = result_of(recorder, platform_seen=False, rate=20.0)
    assert "instances are not shown" not in report.render(result)
    assert report.render(result).count("<svg") == 4
    assert any("not on this machine" in note for note in report.notes(result))


def test_what_is_empty_is_left_out(report):
    """Without faults the report has no chart and no table of faults, and without memory no chart of memory."""
    recorder = record()
    result = result_of(recorder)
    columns = result["platform"]["services"]["rank-items"]
    columns["memory_mb"] = [None] * len(columns["memory_mb"])
    page = report.render(result)
    assert [word for word in ("Failed and degraded", "Faults", "Memory") if word in page.partition("<script")[0]] == []
    faulty = report.render(result_of(record(fault="reset")))
    assert [word in faulty for word in ("Failed and degraded", "Faults", "Memory")] == [True] * 3


def test_charts_take_the_colours_of_the_theme(report):
    """Text and grid have the colours of the page, so a reader in the dark can see them."""
    svg = report.render(result_of(record())).partition("<svg")[2]
    assert "currentColor" in svg
    assert "var(--line)" in svg
    assert not any(placeholder in svg for placeholder in ("#010203", "#040506", "#ffffff"))


def test_a_saturated_generator_is_noted(report):
    """If the generator had no CPU left, the report says that its figures are a lower bound."""
    assert any("lower bound" in note for note in report.notes(result_of(record(cpu=97.0))))
    assert not any("lower bound" in note for note in report.notes(result_of(record(cpu=40.0))))


def test_late_requests_of_an_open_loop_are_noted(report):
    """If requests were sent late, the report says that their latency includes the delay."""
    recorder = record()
    recorder.note_late(0.2)
    assert any("after they were due" in note for note in report.notes(result_of(recorder, rate=10.0)))


def test_recent_figures_cover_the_last_seconds():
    """The progress display shows the last seconds instead of the average of the run."""
    recorder = Recorder()
    for second in range(20):
        recorder.note("returning", AnswerVerdict(), at_s=second, latency_s=0.001 * (second + 1))
    recent = recorder.recent(20.0)
    assert recent["rps"] == 1.0
    assert 19 < recent["p99_ms"] <= 20


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_the_run(terminal):
    """The progress display shows load, throughput, failures and instances, on a terminal and in a log."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    with Progress(duration_s=10, unit="users", console=console) as progress:
        progress.show(
            PlatformSample(1.0, 40, rank_items_scale(1, 5), 20.0, 50.0), {"rps": 123.0, "p99_ms": 45.0, "faults": 6.0}
        )
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    for each in ("40", "123", "45 ms", "6", "1 of 5 instances"):
        assert each in shown


def test_a_status_is_summarized_by_service():
    """Instances of revisions without traffic and processes that have ended do not count."""
    revision = {"ready": 2, "desired": 3, "concurrency": 1.5, "traffic_percent": 100, "instances": [{"pid": 2**22 + 5}]}
    idle = {**revision, "traffic_percent": 0}
    found = service_figures({"services": {"rank-items": {"revisions": [idle, revision]}}})
    assert found == {"rank-items": {"ready": 2, "desired": 3, "concurrency": 1.5, "memory_mb": 0.0}}
    assert service_figures(None) == {}
