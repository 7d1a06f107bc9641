"""A run: locust's runner driven along a shape, a look at the platform once a second, progress on the terminal."""

import random
import signal
import time
from collections.abc import Callable
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
from loadtests.recording import PlatformSample, Recorder
from loadtests.target import Target, learn_histories, look
from loadtests.traffic import Traffic
from loadtests.users import Arrivals, Caller, LoadEnvironment, Visitor

# Users come at once at a step of the shape: a ramp would blur what the step shows. Locust warns above 100 a second.
_SPAWN_RATE = 100
# Longer than the requests' own timeout, so that each ends as an answer or as a failure.
_STOP_TIMEOUT_S = 15.0

Show = Callable[[PlatformSample, dict[str, float]], None]


@dataclass(frozen=True)
class Run:
    """
    What to run.

    Attributes:
        shape: The load over time.
        duration_s: Of the whole.
        users: Of the closed loop, at level 1.
        rate: Of the open loop: requests a second at level 1; None runs the closed loop.
        pattern: How the open loop's requests are spaced.
        think_s: Mean pause of a user of the closed loop between an answer and the next request.
        population: Returning users there are.
        zipf: How much more the popular ones call.
        events: Send interaction events; they stay in the pipeline's feature store.
        seed: Of everything drawn by chance.
    """

    shape: Shape
    duration_s: float
    users: int = 50
    rate: float | None = None
    pattern: Pattern = "poisson"
    think_s: float = 0.0
    population: int = 1000
    zipf: float = 1.0
    events: bool = True
    seed: int = 0

    def wanted(self, elapsed_s: float) -> float:
        """Return how much load there should be: users, or requests a second."""
        if self.rate is None:
            return users_at(self.shape.phases, elapsed_s, duration_s=self.duration_s, users=self.users) or 0
        return self.rate * (level_at(self.shape.phases, elapsed_s, duration_s=self.duration_s) or 0.0)


class _Phases(LoadTestShape):
    """Tells locust how many users there should be."""

    def __init__(self, run: Run) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # locust leaves it without types
        self._run = run

    def tick(self) -> tuple[int, float] | None:
        run, elapsed_s = self._run, time.perf_counter() - self.start_time
        if run.rate is not None:
            # One that sends for all; the shape is in the moments its requests are due.
            return (1, 1) if elapsed_s < run.duration_s else None
        users = users_at(run.shape.phases, elapsed_s, duration_s=run.duration_s, users=run.users)
        return None if users is None else (users, _SPAWN_RATE)


def execute(run: Run, target: Target, *, show: Show) -> dict[str, Any]:
    """
    Run the load and return `Recorder.result`, with what was run and against what.

    Raises:
        TargetError: the features door does not answer.
    """
    rng = random.Random(run.seed)
    # Newcomers and events differ from run to run, or the second run with a seed would find its newcomers known.
    name = f"{time.time_ns():x}"
    population = Population(size=run.population, exponent=run.zipf, rng=rng, run=name)
    ledger = Ledger()
    learn_histories(target, ledger, population.ids)
    known = ledger.users
    recorder = Recorder()
    visitor: type[Visitor] = Caller if run.rate is None else Arrivals
    visitor.ssl_context_factory = staticmethod(target.trust)
    environment = LoadEnvironment(
        user_classes=[visitor], shape_class=_Phases(run), host=target.url, stop_timeout=_STOP_TIMEOUT_S
    )
    environment.traffic = Traffic(
        url=target.url,
        events_url=target.features_url if run.events else None,
        population=population,
        ledger=ledger,
        rng=rng,
        run=name,
        token=target.token,
    )
    environment.recorder = recorder
    environment.think_s = lambda: rng.expovariate(1 / run.think_s) if run.think_s else 0.0
    _drive(environment, run, target, show)
    return recorder.result(duration_s=run.duration_s) | {
        "run": {
            "loop": "closed" if run.rate is None else f"open, {run.pattern}",
            "users": run.users if run.rate is None else None,
            "rate": run.rate,
            "think_s": run.think_s,
            "duration_s": run.duration_s,
            "url": target.url,
            "histories_known": known,
            "events": environment.traffic.sends_events,
            "platform_seen": target.control is not None,
        }
    }


def _drive(environment: LoadEnvironment, run: Run, target: Target, show: Show) -> None:
    runner = environment.create_local_runner()
    process = psutil.Process()
    process.cpu_percent()
    psutil.cpu_percent()
    if run.rate is not None:
        environment.due_times = due_times(
            run.shape.phases,
            rate=run.rate,
            duration_s=run.duration_s,
            pattern=run.pattern,
            rng=random.Random(run.seed + 1),
        )
    environment.began = time.perf_counter()
    runner.start_shape()
    # Locust starts in `ready` and ends in `stopped`; in between it comes by itself.
    shaping = cast("gevent.Greenlet[..., Any]", runner.shape_greenlet)
    # Ctrl-C would otherwise end whichever user happens to run.
    interrupted = Event()
    watch = gevent.signal_handler(signal.SIGINT, interrupted.set)
    next_look = 0.0
    try:
        while not shaping.ready():
            elapsed_s = time.perf_counter() - environment.began
            if elapsed_s >= next_look:
                next_look += 1.0
                sample = PlatformSample(
                    elapsed_s, run.wanted(elapsed_s), look(target.status()), process.cpu_percent(), psutil.cpu_percent()
                )
                environment.recorder.samples.append(sample)
                show(sample, environment.recorder.recent(elapsed_s))
            if interrupted.wait(timeout=min(0.2, max(0.01, next_look - elapsed_s))):
                raise KeyboardInterrupt
    finally:
        watch.cancel()
        runner.quit()
