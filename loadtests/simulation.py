"""`./run.sh simulate`: people with planted tastes look at lists of the running pipeline and click on items."""

import asyncio
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec

from loadtests.people import People, demo_people
from loadtests.target import LoadTarget, TargetError, find_target
from localkn.address import broker_url
from localkn.errors import LocalknError
from recsys.client import AsyncClient, CallError


@dataclass(frozen=True)
class Look:
    """
    A list that a person saw.

    Attributes:
        user_id: The person.
        expected_clicks: The expected number of clicks, from the planted tastes.
        clicks: The clicks that the broker accepted.
    """

    user_id: str
    expected_clicks: float
    clicks: int


@dataclass
class Simulated:
    """
    The outcome of a simulation.

    Attributes:
        looks: The lists with an exposure id, by this id.
        unnamed: Lists without an exposure id.
        failed: Requests without a list.
        unsent: Clicks that the broker did not accept.
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

    All people look at their first lists before the second round begins. Each click names its exposure. *watch* is called
    after each list.
    """
    found = Simulated()
    visits = [(user_id, number) for number in range(lists) for user_id in _shuffled(people, users, number)]
    visits.reverse()
    # The events of two runs have different ids. The pipeline would otherwise ignore those of the second run.
    run = f"{time.time_ns():x}"

    async def click(user_id: str, item_id: str, exposure_id: str) -> bool:
        event_id = f"{run}-{exposure_id}-{item_id}"
        try:
            await client.send_interaction(user_id, "click", item_id, event_id=event_id, exposure_id=exposure_id)
        except CallError:
            found.unsent += 1
            return False
        return True

    async def look(user_id: str, number: int) -> None:
        try:
            answer = await client.recommend(user_id, top_k=top_k)
        except CallError:
            found.failed += 1
            return
        exposure_id, shown = answer.exposure_id, [item.item_id for item in answer.recommendations]
        if not exposure_id:
            found.unnamed += 1
            return
        sent = [await click(user_id, item, exposure_id) for item in people.clicks(user_id, shown, number)]
        found.looks[exposure_id] = Look(user_id, people.expected_clicks(user_id, shown), sum(sent))

    async def work() -> None:
        while visits:
            await look(*visits.pop())
            watch(found)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(work())
    return found


def _shuffled(people: People, users: int, number: int) -> list[str]:
    chosen = sorted(people.favourites)[:users]
    random.Random(f"{people.seed}/{number}").shuffle(chosen)
    return chosen


def run(
    *,
    users: int,
    lists: int,
    top_k: int,
    callers: int,
    bias: float,
    seed: int,
    url: str | None,
    events_url: str | None,
    port: int | None,
    as_json: bool,
    state_dir: Path,
) -> int:
    """Simulate; return 0, or 1 if the pipeline does not answer, names no exposures, or refuses clicks."""
    people = demo_people(bias=bias, seed=seed)
    try:
        target = find_target(state_dir=state_dir, url=url, port=port, features_url=None, token="")
        broker = events_url or broker_url(state_dir / "platform", "default")
    except (TargetError, LocalknError) as error:
        print(error, file=sys.stderr)
        return 1
    found = asyncio.run(_simulate(people, target, broker, users=users, lists=lists, top_k=top_k, callers=callers))
    print(msgspec.json.encode(found.summary()).decode() if as_json else describe(found))
    if not found.looks:
        print(f"{target.url}: no answer names its exposure; run ./run.sh up --exposures", file=sys.stderr)
    return 0 if found.looks and not (found.failed or found.unsent) else 1


async def _simulate(
    people: People, target: LoadTarget, broker: str, *, users: int, lists: int, top_k: int, callers: int
) -> Simulated:
    transport = httpx.AsyncHTTPTransport(verify=target.trust())
    async with AsyncClient(target.url, events_url=broker, timeout_s=10, transport=transport) as client:
        return await simulate(people, client, users=users, lists=lists, top_k=top_k, callers=callers)


def describe(found: Simulated) -> str:
    """Return the outcome as text."""
    told = found.summary()
    text = (
        f"{told['lists']} lists, {told['users']} users, {told['clicks']} clicks; clicks per list "
        f"{told['clicks_per_list']:.4f}, expected from the tastes {told['expected_clicks_per_list']:.4f}"
    )
    lost = {name: told[name] for name in ("unnamed", "failed", "unsent") if told[name]}
    return text + "".join(f"; {count} {name}" for name, count in lost.items())
