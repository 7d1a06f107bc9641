"""
Plant a shift of tastes, and wait until a retrained model serves lists that follow it.

People look at lists in rounds, one list each, spread over the round. Each also views items that no list showed, as a
search finds them: lists of the old taste alone would never show the new one. After the first round the tastes change. The
rounds go on until models that learned from later events rank all lists of a round, and the lists match the new tastes
almost as well as the first lists matched the old ones.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from statistics import fmean

from loadtests.simulation import Audience, shuffled
from offline.state import StateDirectory
from recrank.artefact import read_artefact
from recstore.exposures.urls import open_exposures

FOLLOWED = 0.8
"""Least match of the new tastes, as a share of the match of the old ones before the shift."""

ROUND_S = 10.0
SEARCHES = 3
"""Items that a person views in a round without a list."""

_PATIENCE_S = 20.0

Versions = Callable[[Collection[str]], Awaitable[Mapping[str, int]]]
"""Counts the lists with these exposure ids by the version of the model that ranked them; "" for the popular list."""

LearnedUntil = Callable[[str], int]
"""Returns the time of the newest event that a version learned from, microseconds since the epoch; 0 if unknown."""


@dataclass(frozen=True)
class Round:
    """
    One list for each person.

    Attributes:
        ended_s: Time since the shift, seconds; 0 for the round before it.
        matching: Mean share of the items that suit the present taste.
        clicks: Accepted clicks.
        versions: Number of lists by the version of the model.
        learned: Number of lists from models that learned from events after the shift.
    """

    ended_s: float
    matching: float
    clicks: int
    versions: Mapping[str, int]
    learned: int

    def describe(self) -> str:
        """Return the figures in a sentence."""
        by_version = ", ".join(f"{count} from {version or 'no model'}" for version, count in self.versions.items())
        return f"{self.ended_s:.0f} s: match {self.matching:.2f}, {self.clicks} clicks, lists {by_version}; {self.learned} learned"


@dataclass(frozen=True)
class Shifted:
    """
    The outcome of a shift.

    Attributes:
        before: The round before the shift.
        rounds: The rounds after it.
        failed: Requests without a list.
        unsent: Clicks and views that the broker did not accept.
        unnamed: Lists without an exposure id.
    """

    before: Round
    rounds: tuple[Round, ...]
    failed: int
    unsent: int
    unnamed: int

    @property
    def served_s(self) -> float | None:
        """Time from the shift to the end of the first round that follows it; None if none does."""
        return next((each.ended_s for each in self.rounds if follows(each, self.before)), None)

    @property
    def fault(self) -> str:
        """The reason why the run does not count; "" if the lists follow the new tastes and nothing was lost."""
        if self.unnamed:
            return f"{self.unnamed} answers do not name their exposure; run ./run.sh up --exposures"
        if self.failed or self.unsent:
            return f"{self.failed} requests failed, and the Broker refused {self.unsent} events"
        if self.served_s is None:
            return "the lists do not follow the new tastes; ./run.sh loop must run, and its output says what it did"
        return ""

    def describe(self) -> str:
        """Return the outcome in a sentence."""
        needed = FOLLOWED * self.before.matching
        return self.fault or (
            f"the lists of new models follow the shift after {self.served_s:.0f} s: match {self.rounds[-1].matching:.2f}, "
            f"{needed:.2f} needed, {self.before.matching:.2f} before the shift; no request failed"
        )

    def facts(self) -> dict[str, object]:
        """Return the figures for JSON."""
        versions: Counter[str] = sum((Counter(each.versions) for each in (self.before, *self.rounds)), Counter())
        return {
            "served_s": self.served_s,
            "match_before": self.before.matching,
            "match_needed": FOLLOWED * self.before.matching,
            "match_after_shift": self.rounds[0].matching if self.rounds else None,
            "match_at_end": self.rounds[-1].matching if self.rounds else None,
            "rounds": len(self.rounds),
            "lists_by_version": dict(versions),
            "failed": self.failed,
            "unsent": self.unsent,
            "unnamed": self.unnamed,
        }


def follows(each: Round, before: Round) -> bool:
    """Tell whether models that learned of the shift ranked all lists of a round, and the lists suit the new tastes."""
    return 0 < each.learned == sum(each.versions.values()) and each.matching >= FOLLOWED * before.matching


async def watch_shift(
    audience: Audience,
    versions: Versions,
    learned_until: LearnedUntil,
    *,
    users: int,
    callers: int,
    within_s: float,
    say: Callable[[str], None],
    round_s: float = ROUND_S,
) -> Shifted:
    """
    Let the first *users* people look, shift their tastes, and let them look until the lists follow.

    Args:
        audience: The people.
        versions: Tells which models ranked.
        learned_until: Tells which events a model learned from.
        users: Number of people.
        callers: Most requests in flight.
        within_s: No round begins later than this after the shift, seconds.
        say: Gets a line for each round.
        round_s: Length of a round, seconds; longer if the pipeline is slow.
    """
    moment, moment_us = time.monotonic(), sys.maxsize

    async def measure(number: int) -> Round:
        earlier = len(audience.found.looks)
        await go_round(audience, users=users, number=number, callers=callers, round_s=round_s)
        looks = dict(list(audience.found.looks.items())[earlier:])
        ended_s = time.monotonic() - moment if number else 0.0
        counted = await versions(looks.keys())
        found = Round(
            ended_s,
            fmean(each.matching for each in looks.values()) if looks else 0.0,
            sum(each.clicks for each in looks.values()),
            counted,
            sum(count for version, count in counted.items() if learned_until(version) > moment_us),
        )
        say(found.describe())
        return found

    before = await measure(0)
    audience.people, moment, moment_us = audience.people.shifted(), time.monotonic(), time.time_ns() // 1000
    rounds: list[Round] = []
    while time.monotonic() - moment < within_s and not (rounds and follows(rounds[-1], before)):
        rounds.append(await measure(len(rounds) + 1))
    found = audience.found
    return Shifted(before, tuple(rounds), found.failed, found.unsent, found.unnamed)


async def go_round(audience: Audience, *, users: int, number: int, callers: int, round_s: float) -> None:
    """Let the first *users* people search and look once; the visits are spread over *round_s* seconds."""
    free = asyncio.Semaphore(callers)

    async def look(user_id: str) -> None:
        async with free:
            for search in range(SEARCHES):
                await audience.search(user_id, number * SEARCHES + search)
            await audience.look(user_id, number)

    async with asyncio.TaskGroup() as group:
        for user_id in shuffled(audience.people, users, number):
            group.create_task(look(user_id))
            await asyncio.sleep(round_s / users)


def versions_in(store_url: str) -> Versions:
    """Return a function that reads versions from the exposure log beside the feature store at *store_url*."""

    async def read(exposure_ids: Collection[str]) -> Counter[str]:
        wanted, deadline = set(exposure_ids), time.monotonic() + _PATIENCE_S
        while True:
            async with aclosing(open_exposures(store_url)) as log:
                found = {
                    each.exposure_id: each.version or "" async for each in log.scan() if each.exposure_id in wanted
                }
            # The answers reach the log by events, which may still be on their way.
            if len(found) == len(wanted) or time.monotonic() > deadline:
                return Counter(found.values())
            await asyncio.sleep(0.2)

    return read


def learned_until_in(state: StateDirectory) -> LearnedUntil:
    """Return a function that reads the manifests of the models in *state*."""

    def read(version: str) -> int:
        folder = state.find_model(version)
        return int(read_artefact(folder).manifest.training["until_us"]) if folder else 0

    return cache(read)
