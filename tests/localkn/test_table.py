"""The status as a table."""

import io
import re
from typing import Any

import pytest
from rich.console import Console

from localkn import table

REVISION = {
    "name": "rank-00001", "traffic_percent": 90, "tags": ["next"], "ready": 2, "desired": 5, "concurrency": 7.25,
    "target": 2.1, "rps": 120.0, "p50_ms": 12.4, "p99_ms": 80.6, "failure": None, "panicking": True, "instances": [1],
    "waiting": 0,
}  # fmt: skip
FAILED: dict[str, Any] = REVISION | {
    "name": "rank-00002",
    "traffic_percent": 0,
    "failure": "exit code 1",
    "instances": [],
}
GONE: dict[str, Any] = FAILED | {"name": "rank-00003", "failure": None}
BROKERS = {"ns/b": "http://y/ns/b"}
STATUS = {
    "url": "http://x",
    "brokers": BROKERS,
    "notes": ["a note"],
    "services": {"rank": {"revisions": [REVISION, FAILED, GONE]}},
}


def test_the_table_shows_active_and_failed_revisions(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table has a row for each revision, lists failures below, and leaves out former revisions."""
    monkeypatch.setenv("COLUMNS", "140")
    table.show(lambda: STATUS, watch=False)
    lines = [re.split(" {2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    rows = [line for line in lines if line[0].startswith("rank")]
    assert rows[0] == ["rank-00001 #next", "90 %", "2/5", "7.2 of 2.1", "120.0", "12/81", "panic"]
    assert rows[1:] == [["rank-00002 failed: exit code 1"]]
    assert [line[0].strip() for line in lines[-2:]] == ["Broker ns/b takes events at http://y/ns/b", "a note"]


def test_eighty_columns_hold_every_heading(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A long name, a tag and large figures leave no heading and no figure out."""
    monkeypatch.setenv("COLUMNS", "80")
    busy = {"name": "extract-features-00012", "tags": ["candidate"], "concurrency": 12.3, "target": 20, "rps": 1234.5}
    slow = {"traffic_percent": 100, "p50_ms": 123.0, "p99_ms": 1234.0}
    table.show(lambda: STATUS | {"services": {"x": {"revisions": [REVISION | busy | slow]}}}, watch=False)
    shown = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80
    headings = ["revision", "traffic", "ready", "in flight", "rps", "p50/p99 ms", "state"]
    figures = ["extract-features-00012", "100 %", "2/5", "12.3 of 20", "1234.5", "123/1234", "panic", "#candidate"]
    for word in headings + figures:
        assert word in shown


def test_forty_columns_hold_the_names(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow terminal shows fewer columns, each in full."""
    monkeypatch.setenv("COLUMNS", "40")
    named = REVISION | {"name": "extract-features-00012", "tags": []}
    table.show(lambda: STATUS | {"services": {"x": {"revisions": [named]}}}, watch=False)
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if "extract" in line]
    assert row == ["extract-features-00012", "2/5", "panic"]


@pytest.mark.parametrize(("terminal", "watch"), [(True, None), (True, True), (False, True)])
def test_the_table_is_refreshed(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, watch: bool | None) -> None:
    """The table is refreshed every second until it is interrupted: on a terminal, and elsewhere on request."""
    asked, shown = [], io.StringIO()

    def ask() -> dict[str, Any]:
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return STATUS

    monkeypatch.setattr(table, "Console", lambda: Console(file=shown, force_terminal=terminal))
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        table.show(ask, watch=watch)
    assert len(asked) == 3
    assert shown.getvalue().count("revision") >= 2


@pytest.mark.parametrize(
    ("changes", "state"),
    [({"waiting": 3}, "3 wait"), ({"ready": 0, "desired": 0}, "at zero"), ({"ready": 0, "desired": 1}, "")],
)
def test_the_state_of_a_revision_at_zero(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], state: str
) -> None:
    """The table shows a revision without instances, and the requests that wait for one."""
    monkeypatch.setenv("COLUMNS", "140")
    shown = REVISION | {"panicking": False} | changes
    table.show(lambda: STATUS | {"services": {"rank": {"revisions": [shown]}}}, watch=False)
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "rank-00001" in line]
    assert row.partition("12/81")[2].strip() == state
