"""One rollout from its first command to its last: carries out what `decisions` decides."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

from tools.deployment.kn import Kn, KnError, tagged, traffic
from tools.deployment.undo import undo
from tools.rollout.comparison import Comparison, compare, count_faults
from tools.rollout.decisions import Action, RollBack, Rollout, Shift
from tools.rollout.journal import RolloutJournal
from tools.rollout.reconcilers import reconciler_of
from tools.rollout.trials import MakeClient, TrialClients, run_trials

CURRENT, CANDIDATE = "current", "candidate"
_LATEST = "@latest"
_WARM_UP = 20


@dataclass(frozen=True)
class RolloutPace:
    """
    The number and speed of trials at each step.

    Attributes:
        requests: Trials of a step, each of three requests.
        least_s: Shortest duration of a step, in seconds.
        callers: Trials at a time.
    """

    requests: int = 200
    least_s: float = 10.0
    callers: int = 2


@dataclass
class RolloutOutcome:
    """
    How a rollout ended.

    Attributes:
        service: Name of the Service.
        current: The revision that served before.
        candidate: The new revision; None if it was never made.
        promoted: Whether the candidate serves now.
        interrupted: Whether a signal ended the rollout.
        reasons: Why the candidate was not promoted, and what could not be restored.
        seen: The comparison of each step.
        seconds: Duration.
        commands: The kn commands that changed something.
    """

    service: str
    current: str
    candidate: str | None = None
    promoted: bool = False
    interrupted: bool = False
    reasons: Sequence[str] = ()
    seen: Sequence[Comparison] = ()
    seconds: float = 0.0
    commands: Sequence[str] = field(default_factory=list)


@dataclass
class Conductor:
    """
    Carries out rollouts of a Service.

    Args:
        service: Name of the Service.
        kn: Changes the Service.
        journal: Keeps the Service as it was before, until the rollout has ended.
        make_client: Returns a client of a Service, or of its revision with a tag.
        bodies: The requests to try with, in turn.
        pace: How many requests, and how fast.
        tell: Called with a line for each event; must not raise.
    """

    service: str
    kn: Kn
    journal: RolloutJournal
    make_client: MakeClient
    bodies: Sequence[bytes]
    pace: RolloutPace
    tell: Callable[[str], None]

    def run(self, rollout: Rollout, changes: Sequence[str]) -> RolloutOutcome:
        """
        Make the candidate by *changes* (flags of `kn service update`) and carry *rollout* out.

        However the rollout ends, all traffic goes to one revision, and `spec.traffic` is as before: it follows the
        latest revision if it did before. The outcome names what could not be restored.

        Raises:
            KnError: Nothing was changed: the Service does not exist, its traffic is divided, or another rollout runs.
        """
        began = time.monotonic()
        with self.journal.held():
            self.undo_killed()
            before = self._undivided()
            (current,) = traffic(before)
            outcome = RolloutOutcome(self.service, current)
            self.journal.begin(before)
            try:
                outcome.reasons = self._carry_out(rollout, changes, outcome, before)
                outcome.promoted = not outcome.reasons
            except KeyboardInterrupt:
                outcome.reasons, outcome.interrupted = ["interrupted"], True
            except (KnError, OSError) as error:
                outcome.reasons = [str(error)]
            except Exception as error:  # noqa: BLE001 - the report tells it; the Service must be restored first
                outcome.reasons = [f"a fault of this program: {error!r}"]
            if not outcome.promoted:
                self.tell(f"rolling back to {outcome.current}: {'; '.join(outcome.reasons)}")
                failed = list(self._restore(before, candidate=outcome.candidate))
                outcome.reasons = [*outcome.reasons, *failed]
            else:
                failed = []
            if not failed:
                self.journal.end()
        outcome.seen, outcome.commands = rollout.seen, self.kn.said
        outcome.seconds = time.monotonic() - began
        return outcome

    def undo_killed(self) -> None:
        """
        Restore the Service if an earlier rollout was killed before it could do so.

        Raises:
            KnError: The Service could not be restored.
        """
        before = self.journal.unfinished()
        if before is None:
            return
        now = self.kn.service(self.service)
        # Without a rollout's tags, another update has cleaned up since and may have changed more.
        if _untagging(now):
            self.tell(f"{self.service}: an earlier rollout was killed; restoring what was there before it")
            candidate = tagged(now).get(CANDIDATE, {}).get("revisionName")
            if failed := list(self._restore(before, candidate=candidate)):
                raise KnError("; ".join(failed))
        self.journal.end()

    def _undivided(self) -> dict[str, Any]:
        """Return the Service, which one revision serves alone; remove the tags that an earlier rollout left."""
        service = self.kn.service(self.service)
        if len(shares := traffic(service)) != 1:
            raise KnError(
                f"traffic of {self.service} is divided already ({shares}); give all of it to one revision first"
            )
        if left := _untagging(service):
            self.kn.route(self.service, {}, *left)
            service = self.kn.service(self.service)
        return service

    def _carry_out(
        self, rollout: Rollout, changes: Sequence[str], outcome: RolloutOutcome, before: Mapping[str, Any]
    ) -> Sequence[str]:
        """Carry out action after action; return the reasons for a rollback, none after a promotion."""
        self.tell(f"{self.service}: {outcome.current} serves; making the candidate")
        if reconciler := reconciler_of(before):
            self.tell(
                f"{reconciler} manages {self.service}: pause it until the rollout has ended, "
                "or let it ignore spec.template and spec.traffic"
            )
        # One command, so that the new revision gets no traffic at any moment.
        self.kn.update(
            self.service, *changes, "--traffic", f"{outcome.current}=100",
            "--tag", f"{outcome.current}={CURRENT}", "--tag", f"@latest={CANDIDATE}",
        )  # fmt: skip
        self.kn.settle(self.service)
        with closing(self._clients(outcome)) as clients:
            for body in self.bodies[:_WARM_UP]:
                clients.candidate.ask(body)
            action: Action = rollout.begin()
            while isinstance(action, Shift):
                action = rollout.after(self._step(rollout, action.share, clients, outcome))
        if isinstance(action, RollBack):
            return action.reasons
        heir = _LATEST if follows_latest(before) else outcome.candidate or _LATEST
        self.kn.route(self.service, {heir: 100}, "--untag", CANDIDATE, "--untag", CURRENT)
        self.tell(f"promoted {outcome.candidate}")
        if reconciler:
            self.tell(f"change the manifests of {self.service} in the same way before {reconciler} continues")
        return ()

    def _clients(self, outcome: RolloutOutcome) -> TrialClients:
        service = self.kn.service(self.service)
        outcome.candidate = str(tagged(service)[CANDIDATE]["revisionName"])
        if outcome.candidate == outcome.current:
            raise KnError("the flags change nothing, so no new revision was made")
        return TrialClients(
            current=self.make_client(service, CURRENT),
            candidate=self.make_client(service, CANDIDATE),
            live=self.make_client(service, None),
        )

    def _step(self, rollout: Rollout, share: int, clients: TrialClients, outcome: RolloutOutcome) -> Comparison:
        candidate = outcome.candidate or ""
        if share:
            self.kn.route(self.service, {CANDIDATE: share, CURRENT: 100 - share})
        self._watch_out(candidate, share=share)
        self._note(rollout, share, outcome)
        trials = run_trials(
            clients,
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
        self._watch_out(candidate, share=share)
        return comparison

    def _note(self, rollout: Rollout, share: int, outcome: RolloutOutcome) -> None:
        self.journal.note(
            {
                "service": self.service,
                "current": outcome.current,
                "candidate": outcome.candidate,
                "steps": [0, *rollout.steps],
                "share": share,
                "since": time.time(),
                "seen": [asdict(step) for step in rollout.seen],
            }
        )

    def _watch_out(self, candidate: str, *, share: int) -> None:
        """
        Check that the traffic is as this rollout has set it, and that the tag leads to the candidate.

        Raises:
            KnError: A reconciler or another update has changed the Service, so the figures are not the candidate's.
        """
        now = self.kn.service(self.service)
        latest = tagged(now).get(CANDIDATE, {}).get("revisionName")
        percents = {tag: percent for _, percent, tag in _targets(now)}
        if CURRENT not in percents or percents.get(CANDIDATE) != share:
            fault = f"spec.traffic of {self.service} is no longer as the rollout set it"
        elif latest != candidate:
            fault = f"another update of {self.service} interferes: the candidate became {latest}"
        else:
            return
        reconciler = reconciler_of(now)
        raise KnError(f"{fault}; {reconciler} manages it: pause it and roll out again" if reconciler else fault)

    def _restore(self, before: Mapping[str, Any], *, candidate: str | None) -> Iterator[str]:
        """
        Restore the Service as it was *before*; yield what could not be restored.

        The former revision gets all traffic first. Then the template is changed back, which makes a revision that
        equals the former one. Only when that one is ready may the traffic follow the latest revision again.
        """
        (current,) = traffic(before)
        try:
            now = self.kn.service(self.service)
            flags = undo(before, now)
            if not flags and _targets(now) == _targets(before):
                return
            self.kn.route(self.service, {current: 100}, *_untagging(now))
            latest = now["status"].get("latestCreatedRevisionName")
            same = now["spec"]["template"]["spec"] == before["spec"]["template"]["spec"]
            if not same and latest not in {before["status"].get("latestCreatedRevisionName"), candidate or latest}:
                yield (
                    f"another update made {latest}, so traffic stays with {current}; to follow the latest revision: "
                    f"kn service update {self.service} --traffic @latest=100"
                )
                return
            if flags:
                self.kn.update(self.service, *flags)
            if follows_latest(before):
                self.kn.route(self.service, {_LATEST: 100})
        except KnError as error:
            self.tell(f"rolling back failed: {error}")
            yield (
                f"rolling back failed as well ({error}); by hand: kn service update {self.service} --traffic {current}=100"
            )


def follows_latest(service: Mapping[str, Any]) -> bool:
    """Tell whether the traffic of *service* follows the latest revision."""
    targets = service["spec"].get("traffic") or [{"latestRevision": True, "percent": 100}]
    return any(target.get("percent") and not target.get("revisionName") for target in targets)


def _targets(service: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    targets = service["spec"].get("traffic") or [{"latestRevision": True, "percent": 100}]
    return sorted((t.get("revisionName") or "", t.get("percent") or 0, t.get("tag") or "") for t in targets)


def _untagging(service: Mapping[str, Any]) -> list[str]:
    """Return the flags that remove the tags of a rollout from `spec.traffic`."""
    tags = {target.get("tag") for target in service["spec"].get("traffic") or ()}
    return [word for tag in (CANDIDATE, CURRENT) if tag in tags for word in ("--untag", tag)]


def describe(step: Comparison) -> str:
    """Return a comparison as one line of text."""
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
