"""`./run.sh shadow show`: the figures of the live page as lines."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from localkn import control
from tools.cli.verbs import main


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let a platform run, whose dashboard shows the returned object; its key `url` is that of the dashboard."""
    shown: dict[str, Any] = {"url": "http://127.0.0.1:1", "shadow": None}

    def get(url: str, **_: Any) -> httpx.Response:
        assert url == "http://127.0.0.1:1/_dashboard/changes"
        return httpx.Response(200, json=shown, request=httpx.Request("GET", url))

    monkeypatch.setattr(control, "call", lambda *_, **__: {"dashboard": shown["url"]})
    monkeypatch.setattr(httpx, "get", get)
    return shown


def show(tmp_path: Path) -> int:
    return main(["shadow", "show", "--state-dir", str(tmp_path)])


def test_the_figures_of_a_running_shadow_are_shown(page: dict[str, Any], tmp_path: Path, capsys) -> None:
    """Figures without values are left out; without a shadow, the verb says so."""
    assert show(tmp_path) == 0
    assert capsys.readouterr().out == "no calls to rank-items are copied\n"
    page["shadow"] = {
        "copies": {"compared": 2.0, "failed": 0.0, "dropped": 1.0},
        "overlap": 0.75,
        "order": None,
        "latency_s": {"serving": 0.01, "shadow": 0.02},
    }
    assert show(tmp_path) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2 copies compared, 0 copies failed, 1 copies dropped",
        "mean overlap of the lists: 0.750",
        "mean latency of a call, serving: 10.0 ms",
        "mean latency of a call, shadow: 20.0 ms",
    ]


def test_a_pipeline_without_a_dashboard_is_named(page: dict[str, Any], tmp_path: Path, capsys) -> None:
    """The figures are those of the dashboard."""
    page["url"] = None
    assert show(tmp_path) == 1
    assert "has no dashboard; start it again with `up`" in capsys.readouterr().err
