"""Load from the instances' reports, and from samples of the ingress's counters."""

import time

import pytest

from localkn.stats import LoadReport, Reports, Sampler, Seen


def test_reports_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest report counts, an invalid one is dropped, and a report expires after three seconds."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    reports = Reports()
    reports.datagram_received(b"{", None)
    reports.datagram_received(b'{"pod": "b", "concurrency": "many", "requests": 1}', None)
    reports.datagram_received(b"[]", None)
    reports.datagram_received(b'{"pod": "c", "concurrency": 2, "requests": 1}', None)
    assert reports.newest("c") == LoadReport(2.0, 1.0, 100.0)
    assert reports.newest("b") is None
    clock[0] = 103.0
    assert reports.newest("c") is None
    reports.datagram_received(b'{"pod": "c", "concurrency": 2, "requests": 1}', None)
    reports.forget("c")
    reports.forget("unknown")
    assert reports.newest("c") is None


def test_samples_are_weighted_by_time() -> None:
    """The mean of two samples applies to the time between them, and arrivals are the growth of the total."""
    sampler = Sampler()
    for now, active, total in ((0.0, 0, 0), (0.5, 4, 10), (0.75, 4, 20), (1.0, 0, 30)):
        sampler.observe({"r": {1: Seen(healthy=True, active=active, total=total)}}, now=now)
        if now == 0.0:
            assert sampler.take("r", 1, now=now) == LoadReport(0.0, 0, 0.0)
    assert sampler.take("r", 1, now=1.0) == LoadReport(0.5 * 2 + 0.25 * 4 + 0.25 * 2, 30, 1.0)
    busy = [sampler.busy]
    sampler.observe({"r": {1: Seen(healthy=True, active=0, total=30)}}, now=2.0)
    assert [*busy, sampler.busy] == [True, False]
    assert sampler.take("r", 1, now=2.0) == LoadReport(0.0, 0, 2.0)


def test_a_late_reading_does_not_change_the_load() -> None:
    """The average covers the time between samples, whenever it is read."""
    sampler = Sampler()
    for now in (0.0, 0.1):
        sampler.observe({"r": {1: Seen(healthy=True, active=8)}}, now=now)
    sampler.take("r", 1, now=0.9)
    sampler.observe({"r": {1: Seen(healthy=True, active=8)}}, now=1.8)
    assert sampler.take("r", 1, now=1.9).concurrency == 8


def test_a_restarted_ingress_counts_from_zero() -> None:
    """A total that falls is not a negative number of arrivals, and a removed endpoint is forgotten."""
    sampler = Sampler()
    sampler.observe({"r": {1: Seen(healthy=True, total=50)}}, now=0.0)
    sampler.take("r", 1, now=0.0)
    sampler.observe({"r": {1: Seen(healthy=True, total=5)}}, now=1.0)
    assert sampler.take("r", 1, now=1.0).requests == 0
    sampler.observe({}, now=2.0)
    assert sampler.take("r", 1, now=3.0) == LoadReport(0.0, 0, 3.0)
