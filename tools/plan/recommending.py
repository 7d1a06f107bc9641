"""From what was observed to settings for a goal, and to the ceiling they have."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tools.plan.fitting import BatchCost, Scalability, fit_batch_cost, fit_scalability
from tools.plan.observations import FEATURES, RANKER, RECOMMEND, SERVICES, Sweep
from tools.plan.ranker import HEADROOM, Ranker

# A process of Python that does nothing but its event loop cannot use more than one CPU.
_PROCESS_CPUS = 1.0
_LARGEST_BATCH, _USUAL_BATCH = 256, 32
# What coalescing is set to when nothing asks for more (docs/adr/0008-coalescing.md).
_LEAST_IN_FLIGHT = 16
_BUDGET_GOALS = 3.0
_SHORTEST_BUDGET_S, _LONGEST_BUDGET_S = 0.25, 10.0
# What recommend grants features of its budget.
_FEATURES_SHARE = 0.4


class UnreachableError(Exception):
    """No setting reaches the goal; says why."""


@dataclass(frozen=True)
class Goal:
    """Recommendations a second, and the 99th percentile of their latency."""

    rps: float
    p99_s: float


@dataclass(frozen=True)
class Component:
    """
    Settings of one Service, and what follows from them.

    Attributes:
        target: autoscaling.knative.dev/target, requests in flight for each instance.
        min_scale: Instances that survive the goal's rate, if slowly, while others start.
        max_scale: Instances that serve it within its latency, and one that may be lost.
        environment: Variables to set.
        instance_rps: What one instance is planned for.
        ceiling_rps: What one instance gives when it is full.
    """

    target: int
    min_scale: int
    max_scale: int
    environment: Mapping[str, str]
    instance_rps: float
    ceiling_rps: float


@dataclass(frozen=True)
class Waits:
    """What queueing adds to a request, seconds."""

    mean_s: float
    p99_s: float


@dataclass(frozen=True)
class Fits:
    """The curves: of batches, and of throughput by callers for each ranker, where there were enough of them."""

    batch: BatchCost
    scalability: Scalability | None


@dataclass(frozen=True)
class Plan:
    """
    What to set, and what to expect.

    Attributes:
        components: Settings by Service.
        p99_s: Predicted at the goal's rate.
        batch_size: Mean batch then.
        ceiling_rps: Recommendations a second that the recommended settings give on machines enough.
        now_rps: What the present settings give at max-scale, on the machine that was measured.
        ready_rps: The same with as many instances as were ready at the end of the sweep.
        machine_rps: What this machine's CPUs give at most; None where they cannot be seen.
        bottleneck: Which Service sets `ceiling_rps`.
        fits: The curves behind it.
        notes: What limits the plan's worth.
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
    Fit both curves.

    Raises:
        TooFewError: no answer told of its batch.
    """
    points = sweep.per_ranker()
    enough = len({callers for callers, _ in points}) > 2
    return Fits(fit_batch_cost(sweep.batches()), fit_scalability(points) if enough else None)


def predict_ceiling(sweep: Sweep, fits: Fits, *, ready: Mapping[str, int] | None = None) -> float:
    """
    Return the recommendations a second that the present settings give on the machine that was measured.

    *ready* instances by Service; without, as many as the autoscaler may start.
    """
    counts = ready or sweep.configured.max_scale
    ceilings = _ceilings(sweep, Ranker(fits.batch, sweep.configured.max_batch_size))
    totals = [ceilings[name] * (counts.get(name) or 1) for name in SERVICES]
    return min([*totals, _machine_rps(sweep) or math.inf])


def recommend(sweep: Sweep, goal: Goal) -> Plan:
    """
    Return settings that serve the goal.

    Raises:
        TooFewError: the sweep does not tell enough.
        UnreachableError: the goal is below what a lone request takes.
    """
    fits = fit(sweep)
    loops = {name: EventLoop(sweep.cpu_s(name)) for name in SERVICES}
    carriers = {name: _carrier_rps(sweep, loops[name]) for name in (RECOMMEND, FEATURES)}
    waits_s = sum(loops[name].waits_s(_share(goal.rps, rate)).p99_s for name, rate in carriers.items())
    elsewhere_s = sweep.elsewhere_s(0.99) + waits_s
    ranker, planned = _plan_ranker(fits.batch, goal.p99_s - elsewhere_s)
    if not planned:
        raise UnreachableError(
            f"a p99 of {goal.p99_s * 1000:.0f} ms cannot be kept: a lone request takes {elsewhere_s * 1000:.0f} ms besides "
            f"ranking and {fits.batch.time_s(1) * 1000:.0f} ms for a batch of one"
        )
    ceilings = _ceilings(sweep, ranker)
    rates = carriers | {RANKER: min(planned, HEADROOM * ceilings[RANKER])}
    figures = ranker.at(_share(goal.rps, rates[RANKER]))
    at_work_s = {
        RECOMMEND: sweep.elsewhere_s(0.5) + figures.mean_s,
        FEATURES: sweep.features_s(),
        RANKER: ranker.at(rates[RANKER]).mean_s,
    }
    components = {
        name: _component(
            rate=rates[name],
            ceiling=ceilings[name],
            goal=goal,
            in_flight=rates[name] * (at_work_s[name] + loops[name].waits_s(rates[name]).mean_s),
            users_per_request=1.0 if name == RECOMMEND else sweep.users_per_request(name, rps=goal.rps),
        )
        for name in SERVICES
    }
    environment = _environment(goal, ranker, components)
    components = {name: replace(each, environment=environment[name]) for name, each in components.items()}
    totals = {name: each.ceiling_rps * each.max_scale for name, each in components.items()}
    bottleneck = min(totals, key=lambda name: totals[name])
    return Plan(
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
    """An instance whose requests queue for the one CPU its event loop can use, *cpu_s* each."""

    cpu_s: float

    @property
    def ceiling_rps(self) -> float:
        """Requests a second that fill the CPU; infinite where their cost cannot be seen."""
        return _PROCESS_CPUS / self.cpu_s if self.cpu_s else math.inf

    def waits_s(self, rps: float) -> Waits:
        """Return what queueing adds to a request at *rps*: a queue with batches of one."""
        if not self.cpu_s:
            return Waits(0.0, 0.0)
        figures = Ranker(BatchCost(0.0, self.cpu_s), 1).at(rps)
        return Waits(figures.mean_s - self.cpu_s, figures.p99_s - self.cpu_s)


def _carrier_rps(sweep: Sweep, loop: EventLoop) -> float:
    """Return what an instance that only passes requests on is planned for."""
    # Nobody sees the CPUs of another machine: what was reached there is the least that it can do.
    return HEADROOM * loop.ceiling_rps if loop.cpu_s else max(step.rps for step in sweep.steps)


def _share(rps: float, rate: float) -> float:
    """Return what one instance gets of *rps* when as many share it as *rate* each asks for."""
    return rps / math.ceil(rps / rate)


def _plan_ranker(cost: BatchCost, ranking_s: float) -> tuple[Ranker, float]:
    """
    Return the ranker with the largest batches worth allowing, and the rate it keeps *ranking_s* at.

    A request may wait for a whole batch and then run in one, so two full ones have to fit into the time there is;
    limits far above what is reached at the planned rate say nothing.
    """
    fitting = (ranking_s / 2 - cost.fixed_s) / cost.per_item_s if cost.per_item_s else math.inf
    ranker = Ranker(cost, int(max(1, min(fitting, _LARGEST_BATCH))))
    rate = ranker.rate_within(ranking_s)
    if not rate:
        return ranker, 0.0
    reached = max(_USUAL_BATCH, 2 * ranker.at(rate).large_batch)
    ranker = Ranker(cost, min(ranker.max_batch_size, reached))
    return ranker, ranker.rate_within(ranking_s)


def _ceilings(sweep: Sweep, ranker: Ranker) -> dict[str, float]:
    """Return what one instance of each Service gives: its event loop's CPU; the ranker's slot where that ends first."""
    if not any(sweep.cpu_s(name) for name in SERVICES):
        reached = max(step.rps for step in sweep.steps)
        return dict.fromkeys((RECOMMEND, FEATURES), reached) | {RANKER: ranker.ceiling_rps}
    ceilings = {name: EventLoop(sweep.cpu_s(name)).ceiling_rps for name in SERVICES}
    return ceilings | {RANKER: min(ceilings[RANKER], ranker.ceiling_rps)}


def _machine_rps(sweep: Sweep) -> float | None:
    """Return what the CPUs of the measured machine give with everything on them, the callers included."""
    cpu_s = sum(sweep.steps[-1].cpu_s.values())
    return sweep.configured.cpus / cpu_s if sweep.configured.cpus and cpu_s else None


def _component(*, rate: float, ceiling: float, goal: Goal, in_flight: float, users_per_request: float) -> Component:
    return Component(
        # Little: what is in flight is what arrives times how long it stays. The autoscaler counts requests, not users.
        target=max(1, math.floor(in_flight / users_per_request)),
        min_scale=max(1, math.ceil(goal.rps / ceiling)),
        max_scale=math.ceil(goal.rps / rate) + 1,
        environment={},
        instance_rps=rate,
        ceiling_rps=ceiling,
    )


def _environment(goal: Goal, ranker: Ranker, components: Mapping[str, Component]) -> dict[str, dict[str, str]]:
    budget_s = min(max(_BUDGET_GOALS * goal.p99_s, _SHORTEST_BUDGET_S), _LONGEST_BUDGET_S)
    widest = components[FEATURES].target * components[FEATURES].max_scale
    queue = max(ranker.max_batch_size, math.ceil(components[RANKER].ceiling_rps * budget_s))
    return {
        RECOMMEND: {
            "REQUEST_TIMEOUT_S": f"{budget_s:.2f}",
            "FEATURES_COALESCE_IN_FLIGHT": str(max(_LEAST_IN_FLIGHT, widest)),
            # Of calls sent together the ranker's autoscaler would see one.
            "RANKING_COALESCE_IN_FLIGHT": "0",
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
    said = []
    machine = _machine_rps(sweep)
    if machine is not None and goal.rps > HEADROOM * machine:
        said.append(
            f"This machine's CPUs carry about {machine:.0f} a second with the callers on them: {goal.rps:g} wants other "
            "machines, and here its latency will be longer than predicted."
        )
    if machine is None:
        said.append(
            "The platform is not on this machine: CPU cannot be seen, so recommend and extract_features are planned for "
            "no more than was reached."
        )
    if fits.batch.sizes == 1:
        said.append("Only batches of one size were seen, so no gain by batching is promised: sweep more callers.")
    if errors := sum(step.errors for step in sweep.steps):
        said.append(f"{errors} answers of the sweep were errors or degraded.")
    return said
