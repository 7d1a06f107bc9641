"""Load as instances report it, and as samples of the ingress's counters add up to."""

import time

import pytest

from localkn.stats import Report, Reports, Sampler, Seen


def test_reports_grow_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest counts; nonsense is dropped; after three seconds of silence there is none."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    reports = Reports()
    reports.datagram_received(b"{", None)
    reports.datagram_received(b'{"pod": "b", "concurrency": "many", "requests": 1}', None)
    reports.datagram_received(b"[]", None)
    reports.datagram_received(b'{"pod": "c", "concurrency": 2, "requests": 1}', None)
    assert reports.newest("c") == Report(2.0, 1.0, 100.0)
    assert reports.newest("b") is None
    clock[0] = 103.0
    assert reports.newest("c") is None
    reports.datagram_received(b'{"pod": "c", "concurrency": 2, "requests": 1}', None)
    reports.forget("c")
    reports.forget("unknown")
    assert reports.newest("c") is None


def test_samples_are_weighted_by_time() -> None:
    """Between two looks the mean of both holds; arrivals are the growth of the total."""
    sampler = Sampler()
    for now, active, total in ((0.0, 0, 0), (0.5, 4, 10), (0.75, 4, 20), (1.0, 0, 30)):
        sampler.observe({"r": {1: Seen(healthy=True, active=active, total=total)}}, now=now)
        if now == 0.0:
            assert sampler.take("r", 1, now=now) == Report(0.0, 0, 0.0)
    assert sampler.take("r", 1, now=1.0) == Report(0.5 * 2 + 0.25 * 4 + 0.25 * 2, 30, 1.0)
    busy = [sampler.busy]
    sampler.observe({"r": {1: Seen(healthy=True, active=0, total=30)}}, now=2.0)
    assert [*busy, sampler.busy] == [True, False]
    assert sampler.take("r", 1, now=2.0) == Report(0.0, 0, 2.0)


def test_a_late_look_makes_no_load_of_its_own() -> None:
    """The average is over the time between samples, however late the caller asks."""
    sampler = Sampler()
    for now in (0.0, 0.1):
        sampler.observe({"r": {1: Seen(healthy=True, active=8)}}, now=now)
    sampler.take("r", 1, now=0.9)
    sampler.observe({"r": {1: Seen(healthy=True, active=8)}}, now=1.8)
    assert sampler.take("r", 1, now=1.9).concurrency == 8


def test_an_ingress_that_starts_again_counts_from_zero() -> None:
    """Totals that fall are no negative arrivals, and what has gone is forgotten."""
    sampler = Sampler()
    sampler.observe({"r": {1: Seen(healthy=True, total=50)}}, now=0.0)
    sampler.take("r", 1, now=0.0)
    sampler.observe({"r": {1: Seen(healthy=True, total=5)}}, now=1.0)
    assert sampler.take("r", 1, now=1.0).requests == 0
    sampler.observe({}, now=2.0)
    assert sampler.take("r", 1, now=3.0) == Report(0.0, 0, 3.0)
