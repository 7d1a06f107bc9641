"""Computes settings for a goal from a sweep, and the predicted latency and ceiling."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tools.plan.curves import BatchCost, Scalability, fit_batch_cost, fit_scalability
from tools.plan.observations import FEATURES, RANKER, RECOMMEND, SERVICES, Sweep
from tools.plan.ranker import HEADROOM, SimulatedRanker

# A Python process with a single event loop cannot use more than one CPU.
_PROCESS_CPUS = 1.0
_LARGEST_BATCH, _USUAL_BATCH = 256, 32
# The default limits of coalesced requests in flight (docs/adr/0008-coalescing.md).
_LEAST_FEATURES_IN_FLIGHT, _LEAST_RANKING_IN_FLIGHT = 4, 16
# A request's time budget is this multiple of the goal's p99, between the two bounds.
_BUDGET_GOALS = 3.0
_SHORTEST_BUDGET_S, _LONGEST_BUDGET_S = 0.25, 10.0
# Share of its budget that recommend gives to extract_features.
_FEATURES_SHARE = 0.4


class UnreachableError(Exception):
    """No settings reach the goal; the message gives the reason."""


@dataclass(frozen=True)
class Goal:
    """Required recommendations per second, and the 99th percentile of latency to keep."""

    rps: float
    p99_s: float


@dataclass(frozen=True)
class Component:
    """
    Recommended settings of one Service, and the resulting rates.

    Attributes:
        target: autoscaling.knative.dev/target: requests in flight per instance.
        min_scale: Instances that carry the goal's rate at their ceiling, while others start.
        max_scale: Instances that serve the goal's rate within its latency, and one spare.
        environment: Environment variables to set.
        instance_rps: Planned rate of one instance.
        ceiling_rps: Highest rate of one instance.
    """

    target: int
    min_scale: int
    max_scale: int
    environment: Mapping[str, str]
    instance_rps: float
    ceiling_rps: float


@dataclass(frozen=True)
class Waits:
    """The time that queueing adds to a request, in seconds."""

    mean_s: float
    p99_s: float


@dataclass(frozen=True)
class Fits:
    """The fitted curves: batch cost, and the throughput of one ranker by callers (None with too few levels)."""

    batch: BatchCost
    scalability: Scalability | None


@dataclass(frozen=True)
class CapacityPlan:
    """
    Recommended settings and predictions. Rates are recommendations per second.

    Attributes:
        components: Settings by Service.
        p99_s: Predicted 99th percentile of latency at the goal's rate.
        batch_size: Predicted mean batch size at the goal's rate.
        ceiling_rps: Highest rate with the recommended settings, on enough machines.
        now_rps: Highest rate with the current settings at max-scale, on the measured machine.
        ready_rps: As `now_rps`, with the instances that were ready at the end of the sweep.
        machine_rps: Highest rate of this machine's CPUs; None if the pipeline runs elsewhere.
        bottleneck: The Service that limits `ceiling_rps`.
        fits: The fitted curves.
        notes: Limitations of the plan.
    """

    components: Mapping[str, Component]
    p99_s: float
    batch_size: float
    ceiling_rps: float
    now_rps: float
    ready_rps: float
    machine_rps: float | None
    bottleneck: str
    fits: Fits
    notes: Sequence[str]


def fit(sweep: Sweep) -> Fits:
    """
    Fit both curves to the sweep.

    Raises:
        TooFewError: No receipt has the size and time of a batch.
    """
    points = sweep.per_ranker()
    enough = len({callers for callers, _ in points}) > 2
    return Fits(fit_batch_cost(sweep.batches()), fit_scalability(points) if enough else None)


def predict_ceiling(sweep: Sweep, fits: Fits, *, ready: Mapping[str, int] | None = None) -> float:
    """
    Return the highest rate with the current settings on the measured machine, in recommendations per second.

    *ready* is the number of instances by Service; the default is max-scale.
    """
    counts = ready or sweep.configured.max_scale
    ceilings = _ceilings(sweep, SimulatedRanker(fits.batch, sweep.configured.max_batch_size))
    totals = [ceilings[name] * (counts.get(name) or 1) for name in SERVICES]
    return min([*totals, _machine_rps(sweep) or math.inf])


def make_plan(sweep: Sweep, goal: Goal) -> CapacityPlan:
    """
    Return settings that reach the goal.

    Raises:
        TooFewError: The sweep has no batches in its receipts.
        UnreachableError: A lone request takes longer than the goal allows.
    """
    fits = fit(sweep)
    loops = {name: EventLoop(sweep.cpu_s(name)) for name in SERVICES}
    rates = {name: _planned_rps(sweep, loops[name]) for name in (RECOMMEND, FEATURES)}
    waits_s = sum(loops[name].waits_s(_share(goal.rps, rate)).p99_s for name, rate in rates.items())
    elsewhere_s = sweep.elsewhere_s(0.99) + waits_s
    ranker, ranker_rps = _plan_ranker(fits.batch, goal.p99_s - elsewhere_s)
    if not ranker_rps:
        raise UnreachableError(
            f"no settings reach a p99 of {goal.p99_s * 1000:.0f} ms: a lone request takes "
            f"{fits.batch.time_s(1) * 1000:.0f} ms for a batch of one and {elsewhere_s * 1000:.0f} ms outside ranking; "
            "raise --p99-ms"
        )
    ceilings = _ceilings(sweep, ranker)
    rates |= {RANKER: min(ranker_rps, HEADROOM * ceilings[RANKER])}
    figures = ranker.at(_share(goal.rps, rates[RANKER]))
    latency_s = {
        RECOMMEND: sweep.elsewhere_s(0.5) + figures.mean_s,
        FEATURES: sweep.features_s(),
        RANKER: ranker.at(rates[RANKER]).mean_s,
    }
    # Little's law: requests in flight are the rate times the time that each request stays.
    in_flight = {name: rates[name] * (latency_s[name] + loops[name].waits_s(rates[name]).mean_s) for name in SERVICES}
    components = _components(sweep, goal, ranker, rates=rates, ceilings=ceilings, in_flight=in_flight)
    totals = {name: each.ceiling_rps * each.max_scale for name, each in components.items()}
    bottleneck = min(totals, key=lambda name: totals[name])
    return CapacityPlan(
        components=components,
        p99_s=elsewhere_s + figures.p99_s,
        batch_size=figures.batch,
        ceiling_rps=totals[bottleneck],
        now_rps=predict_ceiling(sweep, fits),
        ready_rps=predict_ceiling(sweep, fits, ready=sweep.steps[-1].ready),
        machine_rps=_machine_rps(sweep),
        bottleneck=bottleneck,
        fits=fits,
        notes=_notes(sweep, fits, goal),
    )


@dataclass(frozen=True)
class EventLoop:
    """An instance whose requests queue for the CPU of its event loop; each request takes *cpu_s*."""

    cpu_s: float

    @property
    def ceiling_rps(self) -> float:
        """Requests per second that saturate the CPU; infinite if the cost is unknown."""
        return _PROCESS_CPUS / self.cpu_s if self.cpu_s else math.inf

    def waits_s(self, rps: float) -> Waits:
        """Return the time that queueing adds to a request at *rps*, as in a ranker with batches of one."""
        if not self.cpu_s:
            return Waits(0.0, 0.0)
        figures = SimulatedRanker(BatchCost(0.0, self.cpu_s), 1).at(rps)
        return Waits(figures.mean_s - self.cpu_s, figures.p99_s - self.cpu_s)


def _planned_rps(sweep: Sweep, loop: EventLoop) -> float:
    """Return the planned rate of an instance that does not rank."""
    # If the pipeline runs elsewhere, the CPU cost is unknown. The measured rate is a lower bound of its capacity.
    return HEADROOM * loop.ceiling_rps if loop.cpu_s else max(step.rps for step in sweep.steps)


def _share(rps: float, rate: float) -> float:
    """Return the rate of one instance if *rps* is spread over as many instances as a planned *rate* each requires."""
    return rps / math.ceil(rps / rate)


def _plan_ranker(cost: BatchCost, ranking_s: float) -> tuple[SimulatedRanker, float]:
    """
    Return the ranker with the largest useful batch limit, and the highest rate at which its p99 is below *ranking_s*.

    A request may wait for one full batch and then run in another, so two full batches have to fit into *ranking_s*. The
    limit is also at most twice the size that batches reach at the planned rate, because a higher limit has no effect.
    """
    fitting = (ranking_s / 2 - cost.fixed_s) / cost.per_item_s if cost.per_item_s else math.inf
    ranker = SimulatedRanker(cost, int(max(1, min(fitting, _LARGEST_BATCH))))
    rate = ranker.rate_within(ranking_s)
    if not rate:
        return ranker, 0.0
    reached = max(_USUAL_BATCH, 2 * ranker.at(rate).large_batch)
    ranker = SimulatedRanker(cost, min(ranker.max_batch_size, reached))
    return ranker, ranker.rate_within(ranking_s)


def _ceilings(sweep: Sweep, ranker: SimulatedRanker) -> dict[str, float]:
    """Return the highest rate of one instance of each Service: limited by its event loop's CPU, or by the ranker's slot."""
    if not any(sweep.cpu_s(name) for name in SERVICES):
        reached = max(step.rps for step in sweep.steps)
        return dict.fromkeys((RECOMMEND, FEATURES), reached) | {RANKER: ranker.ceiling_rps}
    ceilings = {name: EventLoop(sweep.cpu_s(name)).ceiling_rps for name in SERVICES}
    return ceilings | {RANKER: min(ceilings[RANKER], ranker.ceiling_rps)}


def _machine_rps(sweep: Sweep) -> float | None:
    """Return the highest rate of the measured machine's CPUs, which also run the platform and the callers."""
    cpu_s = sum(sweep.steps[-1].cpu_s.values())
    return sweep.configured.cpus / cpu_s if sweep.configured.cpus and cpu_s else None


def _components(
    sweep: Sweep,
    goal: Goal,
    ranker: SimulatedRanker,
    *,
    rates: Mapping[str, float],
    ceilings: Mapping[str, float],
    in_flight: Mapping[str, float],
) -> dict[str, Component]:
    users = {name: 1.0 if name == RECOMMEND else sweep.users_per_request(name, rps=goal.rps) for name in SERVICES}
    # The autoscaler counts HTTP requests, and coalesced requests carry several users.
    targets = {name: max(1, math.floor(in_flight[name] / users[name])) for name in SERVICES}
    max_scales = {name: math.ceil(goal.rps / rates[name]) + 1 for name in SERVICES}
    seen = {name: targets[name] * max_scales[name] for name in SERVICES}
    environment = _environment(
        goal,
        ranker,
        features_in_flight=seen[FEATURES],
        ranking_in_flight=seen[RANKER],
        ranker_rps=ceilings[RANKER],
    )
    return {
        name: Component(
            target=targets[name],
            min_scale=max(1, math.ceil(goal.rps / ceilings[name])),
            max_scale=max_scales[name],
            environment=environment[name],
            instance_rps=rates[name],
            ceiling_rps=ceilings[name],
        )
        for name in SERVICES
    }


def _environment(
    goal: Goal, ranker: SimulatedRanker, *, features_in_flight: int, ranking_in_flight: int, ranker_rps: float
) -> dict[str, dict[str, str]]:
    budget_s = min(max(_BUDGET_GOALS * goal.p99_s, _SHORTEST_BUDGET_S), _LONGEST_BUDGET_S)
    queue = max(ranker.max_batch_size, math.ceil(ranker_rps * budget_s))
    return {
        RECOMMEND: {
            "REQUEST_TIMEOUT_S": f"{budget_s:.2f}",
            "FEATURES_COALESCE_IN_FLIGHT": str(max(_LEAST_FEATURES_IN_FLIGHT, features_in_flight)),
            "RANKING_COALESCE_IN_FLIGHT": str(max(_LEAST_RANKING_IN_FLIGHT, ranking_in_flight)),
        },
        FEATURES: {"REQUEST_TIMEOUT_S": f"{_FEATURES_SHARE * budget_s:.2f}"},
        RANKER: {
            "MAX_BATCH_SIZE": str(ranker.max_batch_size),
            "BATCH_WAIT_TIMEOUT_S": f"{min(0.010, goal.p99_s / 10):.3f}",
            "MAX_QUEUE_SIZE": str(queue),
            "REQUEST_TIMEOUT_S": f"{budget_s:.2f}",
        },
    }


def _notes(sweep: Sweep, fits: Fits, goal: Goal) -> list[str]:
    found = []
    machine = _machine_rps(sweep)
    if machine is not None and goal.rps > HEADROOM * machine:
        found.append(
            f"This machine's CPUs carry about {machine:.0f} recommendations per second, with the callers on them. "
            f"{goal.rps:g} per second require other machines; on this one, latency will exceed the prediction."
        )
    if machine is None:
        found.append(
            "The platform is not on this machine, so its CPU use is unknown. The plan for recommend and "
            "extract_features assumes no more than the measured rate."
        )
    if fits.batch.sizes == 1:
        found.append("All batches had one size, so the plan assumes no gain by batching. Add levels with more callers.")
    if errors := sum(step.errors for step in sweep.steps):
        found.append(f"{errors} answers during the sweep failed or were degraded.")
    return found
