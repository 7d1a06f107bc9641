"""Plans from a sweep whose costs are known, so that every figure can be calculated by hand."""

import dataclasses
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tools.plan.curves import BatchCost, Scalability
from tools.plan.observations import FEATURES, RANKER, RECOMMEND, LoopStep, ObservedSettings, Receipts, Sweep
from tools.plan.planner import EventLoop, Goal, UnreachableError, fit, make_plan, predict_ceiling
from tools.plan.ranker import HEADROOM, SimulatedRanker
from tools.plan.verb import describe, show

# The tutorial's costs: 10 ms for features, 50 ms for a batch, and some CPU time for each part.
COST = BatchCost(0.0002, 0.050)
CPU_S = {RECOMMEND: 0.0004, FEATURES: 0.0002, RANKER: 0.0003, "platform": 0.0004, "callers": 0.0001}


def step(callers: int, *, ready: int = 1, cpu_s=None, batch: int | None = None) -> LoopStep:
    size = batch or max(1, callers // 2)
    rps = callers / (0.013 + 2 * COST.time_s(size))
    return LoopStep(
        callers=callers,
        rps=rps,
        p50_ms=1000 * callers / rps,
        p99_ms=1100 * callers / rps,
        errors=0,
        receipts=Receipts([(size, COST.time_s(size))] * 50, [0.013] * 50, [0.011] * 50),
        ready={RECOMMEND: 1, FEATURES: 1, RANKER: ready},
        cpu_s=CPU_S if cpu_s is None else cpu_s,
        users_per_request={RECOMMEND: 1.0, FEATURES: 1.5, RANKER: 2.0},
    )


def sweep(*, configured: ObservedSettings | None = None, **more) -> Sweep:
    steps = [step(callers, **more) for callers in (1, 2, 4, 8, 16)]
    scale = {RECOMMEND: 5, FEATURES: 5, RANKER: 5}
    return Sweep(steps, configured or ObservedSettings(max_batch_size=8, max_scale=scale, cpus=2))


def test_the_costs_are_recovered():
    """The fit returns the costs that the steps were calculated from."""
    fits = fit(sweep())
    assert fits.batch.per_item_s == pytest.approx(COST.per_item_s, rel=1e-3)
    assert fits.batch.fixed_s == pytest.approx(COST.fixed_s, rel=1e-3)
    assert isinstance(fits.scalability, Scalability)


def test_full_batches_set_the_present_ceiling():
    """One ranker with batches of 8 in 51.6 ms serves 155 requests per second, and five serve five times as many."""
    seen = sweep()
    alone = predict_ceiling(seen, fit(seen), ready={RECOMMEND: 1, FEATURES: 1, RANKER: 1})
    assert alone == pytest.approx(8 / 0.0516, rel=1e-3)
    assert predict_ceiling(seen, fit(seen)) == pytest.approx(5 * 8 / 0.0516, rel=1e-3)


def test_the_cpus_limit_the_ceiling():
    """Two CPUs at 1.4 ms of CPU time per recommendation allow 1,429 per second, however many instances there are."""
    seen = sweep(
        configured=ObservedSettings(max_batch_size=256, max_scale={RANKER: 50, RECOMMEND: 50, FEATURES: 50}, cpus=2)
    )
    assert predict_ceiling(seen, fit(seen)) == pytest.approx(2 / 0.0014)


def test_a_plan_meets_its_goal():
    """The plan meets its rate with each instance within its headroom, with at most one instance to spare."""
    plan = make_plan(sweep(), Goal(rps=900, p99_s=0.2))
    for each in plan.components.values():
        assert (each.max_scale - 1) * each.instance_rps >= 900
        assert (each.max_scale - 2) * each.instance_rps < 900
        assert each.min_scale * each.ceiling_rps >= 900
        assert each.min_scale <= each.max_scale
        assert each.instance_rps <= HEADROOM * each.ceiling_rps * 1.001
    assert plan.p99_s <= 0.2
    assert plan.ceiling_rps == min(each.ceiling_rps * each.max_scale for each in plan.components.values()) >= 900


def test_the_target_follows_littles_law():
    """The target is the number of requests in flight at the planned rate, divided by two users per request."""
    plan = make_plan(sweep(), Goal(rps=900, p99_s=0.2))
    ranker = plan.components[RANKER]
    cost = SimulatedRanker(plan.fits.batch, int(ranker.environment["MAX_BATCH_SIZE"]))
    waits_s = EventLoop(CPU_S[RANKER]).waits_s(ranker.instance_rps).mean_s
    in_flight = ranker.instance_rps * (cost.at(ranker.instance_rps).mean_s + waits_s)
    assert ranker.target == int(in_flight / 2)


def test_a_strict_goal_means_small_batches():
    """Two full batches take less time than the goal, so a stricter goal never allows larger batches."""
    sizes = []
    for p99_s in (0.14, 0.15, 0.2):
        plan = make_plan(sweep(), Goal(rps=500, p99_s=p99_s))
        size = int(plan.components[RANKER].environment["MAX_BATCH_SIZE"])
        assert 2 * plan.fits.batch.time_s(size) < p99_s
        sizes.append(size)
    assert sizes == sorted(sizes)


def test_settings_are_consistent():
    """The queue holds a batch, waiting is shorter than the timeout, and coalescing keeps the load visible."""
    plan = make_plan(sweep(), Goal(rps=3000, p99_s=0.2))
    ranker, front, features = (plan.components[name] for name in (RANKER, RECOMMEND, FEATURES))
    assert int(ranker.environment["MAX_QUEUE_SIZE"]) >= int(ranker.environment["MAX_BATCH_SIZE"])
    assert float(ranker.environment["BATCH_WAIT_TIMEOUT_S"]) < float(ranker.environment["REQUEST_TIMEOUT_S"])
    assert float(front.environment["REQUEST_TIMEOUT_S"]) > 0.2
    assert int(front.environment["FEATURES_COALESCE_IN_FLIGHT"]) >= features.target * features.max_scale
    assert int(front.environment["RANKING_COALESCE_IN_FLIGHT"]) >= ranker.target * ranker.max_scale


def test_an_unreachable_goal_is_refused():
    """A goal below the time of a single request raises an error that names both figures."""
    with pytest.raises(UnreachableError, match="50 ms for a batch of one"):
        make_plan(sweep(), Goal(rps=10, p99_s=0.05))


def test_a_goal_beyond_this_machine_is_noted():
    """A plan for a goal that exceeds this machine's CPUs notes that it needs other machines."""
    plan = make_plan(sweep(), Goal(rps=5000, p99_s=0.2))
    assert any("require other machines" in note for note in plan.notes)
    assert not any("require other machines" in note for note in make_plan(sweep(), Goal(rps=100, p99_s=0.2)).notes)


def test_a_plan_without_cpu_figures_promises_only_measured_rates():
    """Without CPU figures the front is planned for the rate it reached and the ranker for its batches."""
    seen = sweep(configured=ObservedSettings(), cpu_s={})
    reached = max(each.rps for each in seen.steps)
    plan = make_plan(seen, Goal(rps=100, p99_s=0.2))
    assert plan.components[RECOMMEND].instance_rps == pytest.approx(reached)
    assert plan.machine_rps is None
    assert any("not on this machine" in note for note in plan.notes)


def test_the_load_of_a_step_is_divided_by_its_rankers():
    """Sixteen callers of four rankers count as four callers of one ranker."""
    seen = Sweep([step(4), step(16, ready=4)], ObservedSettings())
    (_, alone), (callers, each) = seen.per_ranker()
    assert callers == 4
    assert each == pytest.approx(seen.steps[1].rps / 4)
    assert alone > 0


def test_a_plan_notes_a_single_batch_size():
    """The plan notes that only batches of one were measured, and that answers failed."""
    seen = Sweep([dataclasses.replace(step(1, batch=1), errors=3)], ObservedSettings(cpus=2))
    notes = make_plan(seen, Goal(rps=5, p99_s=1.0)).notes
    assert any("one size" in note for note in notes)
    assert any("3 answers" in note for note in notes)


def test_a_plan_is_shown_with_its_commands():
    """The plan shows each Service with its present setting, the fitted curves, and the commands to apply it."""
    seen = sweep(configured=ObservedSettings(max_batch_size=8, max_scale={RANKER: 5}, target={RANKER: 3.0}, cpus=2))
    plan = make_plan(seen, Goal(rps=900, p99_s=0.2))
    console = Console(file=io.StringIO(), width=140)
    show(plan, seen.configured, console, kn="kn {} --state-dir here")
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    ranker = plan.components[RANKER]
    assert f"{ranker.target} (now 3)" in shown
    assert (
        f"kn service update rank-items --scale {ranker.min_scale}..{ranker.max_scale} --scale-target {ranker.target}"
        in shown
    )
    assert "a batch of n takes 0.2 ms * n + 50 ms" in shown
    assert shown.count("--state-dir here") == 3


@settings(max_examples=15, deadline=None)
@given(rps=st.floats(1, 20_000), p99_s=st.floats(0.15, 3))
def test_every_reachable_goal_has_a_valid_plan(rps, p99_s):
    """The plan for any reachable goal meets the goal, has positive settings and can be written as JSON."""
    seen = sweep()
    plan = make_plan(seen, Goal(rps, p99_s))
    assert plan.p99_s <= p99_s * 1.001
    assert all(each.target >= 1 and 1 <= each.min_scale <= each.max_scale for each in plan.components.values())
    assert json.loads(json.dumps(describe(plan, seen), allow_nan=False))["predicted"]["bottleneck"] in plan.components
