"""Executes a run: drives locust along a shape, samples the platform once a second, and shows progress."""

import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import gevent
import psutil
from gevent.event import Event
from locust import LoadTestShape

from loadtests.arrivals import Pattern, due_times
from loadtests.ledger import Ledger
from loadtests.phases import Shape, level_at, users_at
from loadtests.population import Population
from loadtests.recorder import PlatformSample, Recorder
from loadtests.target import LoadTarget, learn_histories, service_figures
from loadtests.traffic import Traffic
from loadtests.users import ClosedLoopUser, LoadEnvironment, LoadUser, OpenLoopUser

# Users start quickly at each step of a shape, because a ramp would blur the step. Locust warns above 100 per second.
_SPAWN_RATE = 100
# Longer than the timeout of a request, so that every request ends as an answer or a failure.
_STOP_TIMEOUT_S = 15.0

Show = Callable[[PlatformSample, dict[str, float]], None]


@dataclass(frozen=True)
class Run:
    """
    The parameters of a run.

    Attributes:
        shape: The load over time.
        duration_s: Duration of the run.
        returning: Ids of known users.
        users: Closed loop: number of users at level 1.
        rate: Open loop: requests per second at level 1. None selects the closed loop.
        pattern: Open loop: spacing of the requests.
        think_s: Closed loop: mean pause between an answer and the user's next request.
        zipf: Exponent of the users' popularity.
        events: Send interaction events; they stay in the pipeline's feature store.
        seed: Seed of all random choices.
    """

    shape: Shape
    duration_s: float
    returning: Sequence[str]
    users: int = 50
    rate: float | None = None
    pattern: Pattern = "poisson"
    think_s: float = 0.0
    zipf: float = 1.0
    events: bool = True
    seed: int = 0

    def wanted(self, elapsed_s: float) -> float:
        """Return the target load at *elapsed_s*: users, or requests per second."""
        if self.rate is None:
            return users_at(self.shape.phases, elapsed_s, duration_s=self.duration_s, users=self.users) or 0
        return self.rate * (level_at(self.shape.phases, elapsed_s, duration_s=self.duration_s) or 0.0)


class _Phases(LoadTestShape):
    """Tells locust the number of users."""

    def __init__(self, run: Run) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # locust has no annotations here
        self._run = run

    def tick(self) -> tuple[int, float] | None:
        run, elapsed_s = self._run, time.perf_counter() - self.start_time
        if run.rate is not None:
            # A single user sends all requests; their due times follow the shape.
            return (1, 1) if elapsed_s < run.duration_s else None
        users = users_at(run.shape.phases, elapsed_s, duration_s=run.duration_s, users=run.users)
        return None if users is None else (users, _SPAWN_RATE)


def execute(run: Run, target: LoadTarget, *, show: Show) -> dict[str, Any]:
    """
    Run the load and return `Recorder.result` with the key `run` added, which describes the run.

    Raises:
        TargetError: extract_features does not answer.
    """
    rng = random.Random(run.seed)
    # The name differs between runs with the same seed. Otherwise the pipeline would know the second run's new users.
    name = f"{time.time_ns():x}"
    population = Population(run.returning, exponent=run.zipf, rng=rng, run=name)
    ledger = Ledger()
    learn_histories(target, ledger, population.ids)
    known = ledger.users
    traffic = Traffic(
        url=target.url,
        events_url=target.features_url if run.events else None,
        population=population,
        ledger=ledger,
        rng=rng,
        run=name,
        token=target.token,
    )
    environment = _make_environment(run, target, traffic, rng)
    _drive(environment, run, target, show)
    return environment.recorder.result(duration_s=run.duration_s) | {
        "run": {
            "loop": "closed" if run.rate is None else f"open, {run.pattern}",
            "users": run.users if run.rate is None else None,
            "rate": run.rate,
            "think_s": run.think_s,
            "duration_s": run.duration_s,
            "url": target.url,
            "histories_known": known,
            "events": traffic.sends_events,
            "platform_seen": target.control is not None,
        }
    }


def _make_environment(run: Run, target: LoadTarget, traffic: Traffic, rng: random.Random) -> LoadEnvironment:
    user_class: type[LoadUser] = ClosedLoopUser if run.rate is None else OpenLoopUser
    user_class.ssl_context_factory = staticmethod(target.trust)
    environment = LoadEnvironment(
        user_classes=[user_class], shape_class=_Phases(run), host=target.url, stop_timeout=_STOP_TIMEOUT_S
    )
    environment.traffic = traffic
    environment.recorder = Recorder()
    environment.think_s = lambda: rng.expovariate(1 / run.think_s) if run.think_s else 0.0
    return environment


def _drive(environment: LoadEnvironment, run: Run, target: LoadTarget, show: Show) -> None:
    runner = environment.create_local_runner()
    process = psutil.Process()
    process.cpu_percent()
    psutil.cpu_percent()
    if run.rate is not None:
        rng = random.Random(run.seed + 1)
        environment.due_times = due_times(
            run.shape.phases, rate=run.rate, duration_s=run.duration_s, pattern=run.pattern, rng=rng
        )
    environment.began = time.perf_counter()
    runner.start_shape()
    # The greenlet ends when the shape ends.
    shape_greenlet = cast("gevent.Greenlet[..., Any]", runner.shape_greenlet)
    # Without this handler, Ctrl-C would raise KeyboardInterrupt in the greenlet that happens to run.
    interrupted = Event()
    handler = gevent.signal_handler(signal.SIGINT, interrupted.set)
    next_sample_s = 0.0
    try:
        while not shape_greenlet.ready():
            elapsed_s = time.perf_counter() - environment.began
            if elapsed_s >= next_sample_s:
                next_sample_s += 1.0
                figures, shares = service_figures(target.status()), (process.cpu_percent(), psutil.cpu_percent())
                sample = PlatformSample(elapsed_s, run.wanted(elapsed_s), figures, *shares)
                environment.recorder.samples.append(sample)
                show(sample, environment.recorder.recent(elapsed_s))
            if interrupted.wait(timeout=min(0.2, max(0.01, next_sample_s - elapsed_s))):
                raise KeyboardInterrupt
    finally:
        handler.cancel()
        runner.quit()
