"""
Ranks the calls of users in an experiment at the address of their arm.

If an arm's address fails, the default ranks the call. The user stays in the arm, so the analysis compares users as they
were assigned (intention to treat), and a broken arm cannot hide.
"""

import asyncio
import time
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any

import msgspec

from chassis.call import Call
from chassis.hop.client import HopAnswer
from chassis.telemetry.instruments import Counter, Instrument
from chassis.wire.problems import ServingError
from functions.recommend.hops import RankCall, Ranked, RankingClient, RankOutcome
from recsys import metrics
from recsys.experiments.assignment import Assignment, Treatment
from recsys.experiments.declaration import Experiment

# The share of the time left that an arm may take. The default needs the rest if the arm fails.
ARM_SHARE = 0.5


class Arms:
    """
    Chooses the treatment of users, and ranks their calls.

    Args:
        experiments: The running experiments.
        default: Ranks for all other users, and if an arm's address fails.
        clients: The client of each address of an arm.
    """

    def __init__(
        self, experiments: Sequence[Experiment], *, default: RankingClient, clients: Mapping[str, RankingClient]
    ) -> None:
        self._assignment = Assignment(experiments)
        self._default = default
        self._clients = clients
        rankers = [(each.name, arm.name) for each in experiments for arm in each.arms if arm.url]
        known = [(*ranker, outcome) for ranker in rankers for outcome in ("answered", "failed")]
        self._calls = Counter(metrics.ARM_CALLS, known=known)

    def instruments(self) -> list[Instrument]:
        """Return the metrics of the arms."""
        return [self._calls]

    def treat(self, user_id: str) -> Treatment | None:
        """Return the treatment of the user; None for the default."""
        return self._assignment.treat(user_id)

    async def rank(
        self, calls: Sequence[RankCall], treatments: Sequence[Treatment | None], *, call: Call, within_s: float
    ) -> tuple[HopAnswer[list[RankOutcome]], frozenset[int]]:
        """
        Return the outcomes of *calls*, with the receipt of the slowest request, and the places whose arm failed.

        Calls of different addresses are sent together. Those that an arm could not rank are sent to the default.

        Raises:
            DependencyError, DeadlineExceededError: as `RankingClient.rank`, if no call could be ranked.
        """
        if not self._clients:  # no arm has an address
            return await self._default.rank(calls, call=call, within_s=within_s), frozenset()
        places: dict[str, list[int]] = {}
        for place, treatment in enumerate(treatments):
            places.setdefault(treatment.url if treatment else "", []).append(place)
        if places.keys() == {""}:
            return await self._default.rank(calls, call=call, within_s=within_s), frozenset()
        began = time.monotonic()
        answers: list[HopAnswer[list[RankOutcome]]] = []
        outcomes: dict[int, RankOutcome] = {}

        async def rank_at(url: str, wanted: Sequence[int], seconds: float) -> None:
            client = self._clients[url] if url else self._default
            try:
                answer = await client.rank([calls[place] for place in wanted], call=call, within_s=seconds)
            except ServingError as error:
                outcomes.update(dict.fromkeys(wanted, error))
            else:
                answers.append(answer)
                outcomes.update(zip(wanted, answer.value, strict=True))

        await _run([rank_at(url, wanted, within_s * ARM_SHARE if url else within_s) for url, wanted in places.items()])
        failed = [place for url, own in places.items() if url for place in own if _has_failed(outcomes[place])]
        self._count(treatments, failed)
        if failed:
            call.receipt.spend("arm-failed", time.monotonic() - began)
            await rank_at("", failed, within_s - (time.monotonic() - began))
        if not answers:
            raise next(each for each in outcomes.values() if isinstance(each, ServingError))
        slowest = max(answers, key=lambda answer: answer.spent_s)
        ordered = [outcomes[place] for place in range(len(calls))]
        return msgspec.structs.replace(slowest, value=ordered), frozenset(failed)

    def _count(self, treatments: Sequence[Treatment | None], failed: Collection[int]) -> None:
        for place, treatment in enumerate(treatments):
            if treatment and treatment.url:
                self._calls.add(*treatment.ranker, "failed" if place in failed else "answered")


async def _run(together: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines together. A lone one needs no group of tasks, which takes as much CPU time as the rest of a call."""
    if len(together) == 1:
        await together[0]
        return
    async with asyncio.TaskGroup() as group:
        for each in together:
            group.create_task(each)


def _has_failed(outcome: RankOutcome) -> bool:
    """Tell whether the arm could not rank a call; faults of the caller's own fields say nothing about the arm."""
    return not isinstance(outcome, Ranked) or not (outcome.items or outcome.caller_faults())
