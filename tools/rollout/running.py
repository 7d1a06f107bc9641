"""One rollout from the first look to the report: carries out what `deciding` says."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from tools.kn import Kn, KnError, tagged, traffic
from tools.rollout.asking import Door, Doors, run_trials
from tools.rollout.comparing import Comparison, compare, count_faults
from tools.rollout.deciding import Action, RollBack, Rollout, Shift
from tools.rollout.undoing import undo

CURRENT, CANDIDATE = "current", "candidate"
_WARM_UP = 20


@dataclass(frozen=True)
class Pace:
    """
    How much is asked at each step.

    Attributes:
        requests: Trials, each of three requests.
        least_s: Seconds that a step lasts at least.
        callers: Trials at a time.
    """

    requests: int = 200
    least_s: float = 10.0
    callers: int = 2


@dataclass
class Outcome:
    """
    What became of a rollout.

    Attributes:
        service: Of which Service.
        current: The revision that served before.
        candidate: The revision that was to; None where it never came to be.
        promoted: Whether it does now.
        reasons: Why not.
        seen: The comparison of each step.
        seconds: How long it took.
        commands: What kn was told.
    """

    service: str
    current: str
    candidate: str | None = None
    promoted: bool = False
    reasons: Sequence[str] = ()
    seen: Sequence[Comparison] = ()
    seconds: float = 0.0
    commands: Sequence[str] = field(default_factory=list)


@dataclass
class Conductor:
    """
    Carries out rollouts of a Service.

    Args:
        service: Its name.
        kn: How to change it.
        door: Makes the way to a URL.
        bodies: The requests to try with, in turn.
        pace: How many of them.
        tell: Is given a line for each thing that happens.
    """

    service: str
    kn: Kn
    door: Callable[[str], Door]
    bodies: Sequence[bytes]
    pace: Pace
    tell: Callable[[str], None]

    def run(self, rollout: Rollout, changes: Sequence[str]) -> Outcome:
        """
        Make the candidate by *changes* (flags of `kn service update`) and carry *rollout* out.

        Whatever happens, the Service ends with one revision that has all its traffic, or the outcome says why not.

        Raises:
            KnError: nothing was begun, because the Service is not there or its traffic is divided already.
        """
        began = time.monotonic()
        outcome, before = Outcome(self.service, self._present()), self.kn.service(self.service)
        try:
            outcome.reasons = self._carry_out(rollout, changes, outcome)
            outcome.promoted = not outcome.reasons
        except (KnError, OSError) as error:
            outcome.reasons = [str(error)]
        except BaseException:
            outcome.reasons = ["interrupted"]
            raise
        finally:
            if not outcome.promoted:
                self.tell(f"rolling back to {outcome.current}: {'; '.join(outcome.reasons)}")
                outcome.reasons = [*outcome.reasons, *self._restore(outcome.current, before)]
            outcome.seen, outcome.commands = rollout.seen, self.kn.said
            outcome.seconds = time.monotonic() - began
        return outcome

    def _present(self) -> str:
        """Return the revision that has all traffic; take tags away that a rollout before left behind."""
        service = self.kn.service(self.service)
        shares = traffic(service)
        if len(shares) != 1:
            raise KnError(
                f"traffic of {self.service} is divided already ({shares}); give all of it to one revision first"
            )
        (present,) = shares
        if left := _untagging(service):
            self.kn.route(self.service, {present: 100}, *left)
        return present

    def _carry_out(self, rollout: Rollout, changes: Sequence[str], outcome: Outcome) -> Sequence[str]:
        """Go from action to action; return why it ended before the promotion, nothing where it did not."""
        self.tell(f"{self.service}: {outcome.current} serves; making the candidate")
        # All in one: there is no moment at which the new revision could get traffic.
        self.kn.update(
            self.service, *changes, "--traffic", f"{outcome.current}=100",
            "--tag", f"{outcome.current}={CURRENT}", "--tag", f"@latest={CANDIDATE}",
        )  # fmt: skip
        self.kn.settle(self.service)
        with closing(self._doors(outcome)) as doors:
            for body in self.bodies[:_WARM_UP]:
                doors.candidate.ask(body)
            action: Action = rollout.begin()
            while isinstance(action, Shift):
                action = rollout.after(self._step(rollout, action.share, doors, outcome))
        if isinstance(action, RollBack):
            return action.reasons
        self.kn.route(self.service, {"@latest": 100}, "--untag", CANDIDATE, "--untag", CURRENT)
        self.tell(f"promoted {outcome.candidate}")
        return ()

    def _doors(self, outcome: Outcome) -> Doors:
        service = self.kn.service(self.service)
        found = tagged(service)
        outcome.candidate = str(found[CANDIDATE]["revisionName"])
        if outcome.candidate == outcome.current:
            raise KnError("nothing was changed, so there is no new revision")
        return Doors(
            current=self.door(found[CURRENT]["url"]),
            candidate=self.door(found[CANDIDATE]["url"]),
            live=self.door(service["status"]["url"]),
        )

    def _step(self, rollout: Rollout, share: int, doors: Doors, outcome: Outcome) -> Comparison:
        candidate = outcome.candidate or ""
        if share:
            self._watch_out(candidate)
            self.kn.route(self.service, {CANDIDATE: share, CURRENT: 100 - share})
        trials = run_trials(
            doors,
            self.bodies,
            requests=self.pace.requests,
            least_s=self.pace.least_s,
            callers=self.pace.callers,
            stop=lambda trials: rollout.hopeless(
                count_faults(trials, share=share, candidate=candidate), planned=self.pace.requests
            ),
        )
        comparison = compare(trials, share=share, candidate=candidate)
        self.tell(describe(comparison))
        return comparison

    def _watch_out(self, candidate: str) -> None:
        """Make sure that the tag still leads to the candidate: anybody may update a Service."""
        latest = tagged(self.kn.service(self.service)).get(CANDIDATE, {}).get("revisionName")
        if latest != candidate:
            raise KnError(f"somebody else updates {self.service}: the candidate became {latest}")

    def _restore(self, current: str, before: Mapping[str, Any]) -> Iterator[str]:
        """
        Give *current* all traffic; then describe what serves, or the next update would begin where this one failed.

        The revision that makes gets no traffic, and no instance for long. Yields what went wrong.
        """
        try:
            now = self.kn.service(self.service)
            self.kn.route(self.service, {current: 100}, *_untagging(now))
            if flags := undo(before, now):
                self.kn.update(self.service, *flags, "--no-wait")
        except KnError as error:
            self.tell(f"rolling back failed: {error}")
            yield f"rolling back failed as well ({error}); by hand: kn service update {self.service} --traffic {current}=100"


def _untagging(service: Mapping[str, Any]) -> list[str]:
    """Return the flags that take our tags from what is wanted of the traffic, whether it came to be or not."""
    tags = {target.get("tag") for target in service["spec"].get("traffic") or ()}
    return [word for tag in (CANDIDATE, CURRENT) if tag in tags for word in ("--untag", tag)]


def describe(step: Comparison) -> str:
    """Return a comparison in a line."""
    told = [
        f"{step.share:3} %  shadow {step.candidate.requests}: {step.candidate.faults} failed",
        f"p50 {step.candidate.p50_ms:.1f} ms (present {step.current.p50_ms:.1f})",
        f"p99 {step.candidate.p99_ms:.1f} ms (present {step.current.p99_ms:.1f})",
    ]
    if step.live.requests:
        told.append(f"live {step.live.requests}: {step.live.faults} failed, p99 {step.live.p99_ms:.1f} ms")
    if step.overlap is not None:
        told.append(f"overlap {step.overlap:.3f}")
    if step.correlation is not None:
        told.append(f"correlation {step.correlation:.3f}")
    return ", ".join(told)
