"""People with planted tastes look at lists of a pipeline and click on items."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field

from loadtests.people import People
from recsys.client import AsyncClient, CallError


@dataclass(frozen=True)
class Look:
    """
    A list that a person saw.

    Attributes:
        user_id: The person.
        expected_clicks: The expected number of clicks, from the planted tastes.
        clicks: The clicks that the broker accepted.
        matching: The share of the items that suit the person's taste.
    """

    user_id: str
    expected_clicks: float
    clicks: int
    matching: float


@dataclass
class Simulated:
    """
    The outcome of a simulation.

    Attributes:
        looks: The lists with an exposure id, by this id.
        unnamed: Lists without an exposure id.
        failed: Requests without a list.
        unsent: Clicks and views that the broker did not accept.
    """

    looks: dict[str, Look] = field(default_factory=dict)
    unnamed: int = 0
    failed: int = 0
    unsent: int = 0

    def summary(self) -> dict[str, float]:
        """Return the counts, and clicks per list: those of the run, and those that the tastes make expected."""
        shown = max(1, len(self.looks))
        return {
            "lists": len(self.looks),
            "users": len({each.user_id for each in self.looks.values()}),
            "clicks": sum(each.clicks for each in self.looks.values()),
            "clicks_per_list": sum(each.clicks for each in self.looks.values()) / shown,
            "expected_clicks_per_list": sum(each.expected_clicks for each in self.looks.values()) / shown,
            "unnamed": self.unnamed,
            "failed": self.failed,
            "unsent": self.unsent,
        }


class Audience:
    """
    Lets people look at lists of a pipeline and click. Each click names its exposure.

    Attributes:
        people: The people, whose tastes may change between two lists.
        found: The outcome so far.
    """

    def __init__(self, people: People, client: AsyncClient, *, top_k: int) -> None:
        self.people, self.found = people, Simulated()
        self._client, self._top_k = client, top_k
        # The events of two runs have different ids. The pipeline would otherwise ignore those of the second run.
        self._run = f"{time.time_ns():x}"

    async def look(self, user_id: str, number: int) -> None:
        """Let a person look at list *number* and click."""
        people = self.people
        try:
            answer = await self._client.recommend(user_id, top_k=self._top_k)
        except CallError:
            self.found.failed += 1
            return
        exposure_id, shown = answer.exposure_id, [item.item_id for item in answer.recommendations]
        if not exposure_id:
            self.found.unnamed += 1
            return
        clicked = people.clicks(user_id, shown, number)
        sent = [await self._send(user_id, "click", item, exposure_id=exposure_id) for item in clicked]
        self.found.looks[exposure_id] = Look(
            user_id, people.expected_clicks(user_id, shown), sum(sent), people.matching(user_id, shown)
        )

    async def search(self, user_id: str, number: int) -> None:
        """Let a person view the item that search *number* finds, which no list has to show."""
        await self._send(user_id, "view", self.people.search(user_id, number), exposure_id=None, search=number)

    async def _send(self, user_id: str, kind: str, item_id: str, *, exposure_id: str | None, search: int = 0) -> bool:
        event_id = f"{self._run}-{exposure_id or f'{user_id}-{search}'}-{item_id}"
        try:
            await self._client.send_interaction(user_id, kind, item_id, event_id=event_id, exposure_id=exposure_id)
        except CallError:
            self.found.unsent += 1
            return False
        return True


async def simulate(
    people: People,
    client: AsyncClient,
    *,
    users: int,
    lists: int,
    top_k: int,
    callers: int,
    watch: Callable[[Simulated], None] = lambda _: None,
) -> Simulated:
    """
    Let the first *users* people look at *lists* lists each, with *callers* requests in flight.

    All people look at their first lists before the second round begins. *watch* is called after each list.
    """
    audience = Audience(people, client, top_k=top_k)

    async def look(user_id: str, number: int) -> None:
        await audience.look(user_id, number)
        watch(audience.found)

    await _in_turn(
        (look(user_id, number) for number in range(lists) for user_id in shuffled(people, users, number)), callers
    )
    return audience.found


async def receive_newcomers(
    people: People, client: AsyncClient, *, lists: int, top_k: int, callers: int, pause_s: float
) -> Simulated:
    """
    Let all people, whom the pipeline does not know, come one after the other, *callers* at a time.

    Each views an item of the favourite category, waits *pause_s* seconds, and looks at *lists* lists.
    """
    audience = Audience(people, client, top_k=top_k)

    async def visit(user_id: str) -> None:
        await audience.search(user_id, 0)
        await asyncio.sleep(pause_s)
        for number in range(lists):
            await audience.look(user_id, number)

    await _in_turn((visit(user_id) for user_id in people.favourites), callers)
    return audience.found


async def _in_turn(visits: Iterator[Coroutine[None, None, None]], callers: int) -> None:
    """Await all *visits* in their order, *callers* at a time."""

    async def work() -> None:
        for visit in visits:
            await visit

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(work())


def shuffled(people: People, users: int, number: int) -> list[str]:
    """Return the first *users* people in the order of round *number*."""
    chosen = sorted(people.favourites)[:users]
    random.Random(f"{people.seed}/{number}").shuffle(chosen)
    return chosen


def describe(found: Simulated) -> str:
    """Return the outcome as text."""
    told = found.summary()
    text = (
        f"{told['lists']} lists, {told['users']} users, {told['clicks']} clicks; clicks per list "
        f"{told['clicks_per_list']:.4f}, expected from the tastes {told['expected_clicks_per_list']:.4f}"
    )
    lost = {name: told[name] for name in ("unnamed", "failed", "unsent") if told[name]}
    return text + "".join(f"; {count} {name}" for name, count in lost.items())
