"""Rates and quantiles between two observations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kndashboard.interval import SnapshotInterval, quantile
from kndashboard.view import view
from tests.kndashboard.seen import POD, revision, service, snapshot, status

RUNNING = status(rank_items=service(revision("rank-items-00001", "ready", "ready")))
OTHER = "rank-items-00001-2"


def batches(*cumulated: int) -> str:
    lines = [
        f'recsys_batch_size_bucket{{le="{le}"}} {n}' for le, n in zip(("1.0", "2.0", "+Inf"), cumulated, strict=True)
    ]
    return "\n".join(["# TYPE recsys_batch_size histogram", *lines, f"recsys_batch_size_count {cumulated[-1]}", ""])


def requests(ok: int, failed: int) -> str:
    head = "# TYPE recsys_requests counter\n# TYPE recsys_requests_in_flight gauge\nrecsys_requests_in_flight 1\n"
    return head + f'recsys_requests_total{{status="200"}} {ok}\nrecsys_requests_total{{status="503"}} {failed}\n'


def test_counters_are_added_over_instances():
    """A new instance counts from zero, and a restarted one does not reduce the sum."""
    before = snapshot(0, RUNNING, {POD: requests(100, 2)})
    after = snapshot(4, RUNNING, {POD: requests(110, 0), OTHER: requests(30, 0)})
    span = SnapshotInterval(before, after)
    assert span.increase("recsys_requests_total", by="status", service="rank-items") == {"200": 40, "503": 0}
    assert span.rates("recsys_requests_total") == {"": 10}
    assert span.increase("recsys_requests_total", service="recommend") == {}


def test_histogram_buckets_are_separated():
    """Each bucket holds the values between its bound and the one before."""
    span = SnapshotInterval(
        snapshot(0, RUNNING, {POD: batches(1, 1, 1)}), snapshot(1, RUNNING, {POD: batches(4, 9, 10)})
    )
    assert span.buckets("recsys_batch_size") == {1.0: 3, 2.0: 5, float("inf"): 1}


@pytest.mark.parametrize(("q", "expected"), [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 1.5), (0.9, 1.8), (1.0, 2.0)])
def test_quantiles_are_interpolated_within_a_bucket(q, expected):
    """Quantiles are estimated as in Prometheus."""
    assert quantile({1.0: 5, 2.0: 5, 4.0: 0, float("inf"): 0}, q) == pytest.approx(expected)


def test_quantiles_at_the_edges_are_defined():
    """An empty histogram has no quantile, empty buckets are skipped, and the last bound is the maximum."""
    assert quantile({}, 0.5) is None
    assert quantile({1.0: 0, float("inf"): 0}, 0.5) is None
    assert quantile({1.0: 0, 2.0: 1, float("inf"): 9}, 0.99) == 2.0
    assert quantile({1.0: 0, 2.0: 4, 4.0: 0, 8.0: 4, float("inf"): 0}, 0.75) == 6.0
    assert quantile({1.0: 0, 2.0: 1}, 0.0) == 1.0


@given(st.lists(st.integers(0, 50), min_size=2, max_size=8).filter(any), st.floats(0, 1), st.floats(0, 1))
def test_quantiles_are_monotonic(counts, one, other):
    """A higher quantile never has a lower value."""
    buckets = {float(bound): float(count) for bound, count in enumerate(counts, 1)}
    low, high = (quantile(buckets, q) for q in sorted((one, other)))
    assert low is not None
    assert high is not None
    assert low <= high + 1e-9


def test_the_page_shows_rates_and_scale():
    """Rates, failures, batches and events come from the instances, and the scale from the platform."""
    running = status(
        recommend=service(revision("recommend-00001", "ready"), public=True),
        rank_items=service(revision("rank-items-00001", "ready", "starting", panicking=True)),
        extract_features=service(revision("extract-features-00001", "ready")),
    )
    hops = (
        "# TYPE recsys_hop_calls counter\n"
        'recsys_hop_calls_total{hop="rank_items",outcome="ok"} %d\n'
        "# TYPE recsys_breaker_state gauge\n"
        'recsys_breaker_state{hop="rank_items"} 2\n'
    )
    events = '# TYPE recsys_events counter\nrecsys_events_total{outcome="accepted"} %d\n'
    front, extract = "recommend-00001-1", "extract-features-00001-1"
    before = {POD: requests(0, 0) + batches(0, 0, 0), front: hops % 0, extract: events % 5}
    after = {POD: requests(16, 4) + batches(2, 3, 3), front: hops % 20, extract: events % 9}
    shown = view(snapshot(0, running, before), snapshot(2, running, after))
    ranking = shown["services"]["rank-items"]
    assert (ranking["rps"], ranking["errors"]) == (10, 2)
    assert [each["state"] for each in ranking["revisions"][0]["instances"]] == ["ready", "starting"]
    assert ranking["revisions"][0]["panicking"]
    assert shown["calls"] == [
        {"from": "recommend", "to": "extract-features", "rps": 0.0, "breaker": 0.0},
        {"from": "recommend", "to": "rank-items", "rps": 10.0, "breaker": 2.0},
    ]
    assert shown["batches"]["sizes"] == [
        {"up_to": 1.0, "count": 2}, {"up_to": 2.0, "count": 1}, {"up_to": None, "count": 0}
    ]  # fmt: skip
    assert shown["events"] == {"rates": {"accepted": 2.0}, "totals": {"accepted": 9.0}}


def test_an_image_without_metrics_uses_the_ingresss_figures():
    """Without metrics of an instance, the page shows the requests and latencies that the ingress measured."""
    seen = snapshot(1, status(front=service(revision("front-00001", "ready", p50_ms=3.0, p99_ms=9.0), public=True)))
    front = view(seen, seen)["services"]["front"]
    assert (front["rps"], front["errors"], front["p50_ms"], front["p99_ms"]) == (4.0, None, 3.0, 9.0)
    assert view(seen, seen)["calls"] == []


def test_a_service_without_requests_shows_no_old_latency():
    """The ingress' latencies are those since its start, so an idle Service at zero shows none of them."""
    idle = service(revision("front-00001", rps=0.0, p50_ms=3.0, p99_ms=9.0), public=True)
    front = view(*[snapshot(1, status(front=idle))] * 2)["services"]["front"]
    assert (front["rps"], front["p50_ms"], front["p99_ms"]) == (0.0, None, None)


def test_a_service_at_zero_shows_its_waiting_requests():
    """The page shows the requests in the activator, and the last cold start of each revision."""
    asleep = revision("front-00001", desired=1, waiting=3, cold_start_s=1.5)
    seen = snapshot(1, status(front=service(asleep, revision("front-00002", traffic_percent=0))))
    front = view(seen, seen)["services"]["front"]
    assert (front["ready"], front["desired"], front["waiting"]) == (0, 1, 3)
    assert front["revisions"][0]["cold_start_s"] == 1.5
