"""Simulated people click by taste and position, and each click names the list that it belongs to."""

import asyncio
import json
from collections import Counter
from dataclasses import replace

import httpx
import pytest

from loadtests.people import LIKED, OTHER, People, demo_people
from loadtests.simulation import Simulated, describe, receive_newcomers, simulate
from recsys.client import AsyncClient
from tools.cli.verbs import main

PEOPLE = People({f"user_{n}": "red" for n in range(40)}, {"a": "red", "b": "blue", "c": "red"}, bias=1.0, seed=5)


class StandIn:
    """A stand-in for recommend and the broker: answers with three items, and keeps the events."""

    def __init__(self, *, names: bool = True, takes_events: bool = True) -> None:
        self._names, self._takes_events = names, takes_events
        self.asked: list[str] = []
        self.events: list[dict[str, str]] = []
        self.ids: set[str] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if "ce-id" in request.headers:
            self.events.append(body)
            self.ids.add(request.headers["ce-id"])
            return httpx.Response(202 if self._takes_events else 400, json={"title": "no", "code": "no"})
        self.asked.append(body["user_id"])
        headers = {"recsys-exposure": f"{len(self.asked):024x}"} if self._names else {}
        items = [{"item_id": item, "score": 1.0} for item in "abc"]
        return httpx.Response(200, json={"user_id": body["user_id"], "recommendations": items}, headers=headers)


def run(stand_in: StandIn, *, users: int = 40, lists: int = 3, callers: int = 4) -> Simulated:
    async def go() -> Simulated:
        transport = httpx.MockTransport(stand_in)
        async with AsyncClient("http://recommend", events_url="http://broker", transport=transport) as client:
            return await simulate(PEOPLE, client, users=users, lists=lists, top_k=3, callers=callers)

    return asyncio.run(go())


def test_all_people_look_at_each_list_and_clicks_name_their_exposures():
    """Each of the users gets every list once, and the events hold the clicks that the people make, each with a new id."""
    stand_in = StandIn()
    found = run(stand_in)
    assert set(Counter(stand_in.asked).values()) == {3}
    assert len(found.looks) == 120
    assert len(stand_in.ids) == len(stand_in.events) == found.summary()["clicks"]
    users = {exposure_id: look.user_id for exposure_id, look in found.looks.items()}
    assert all(users[event["exposure_id"]] == event["user_id"] for event in stand_in.events)
    expected = [(user, item) for user in PEOPLE.favourites for n in range(3) for item in PEOPLE.clicks(user, "abc", n)]
    assert Counter((event["user_id"], event["item_id"]) for event in stand_in.events) == Counter(expected)


def test_the_order_of_the_answers_does_not_change_the_clicks():
    """One caller and eight callers give the same clicks; another seed gives others."""
    one, eight = StandIn(), StandIn()
    run(one, callers=1)
    run(eight, callers=8)
    clicked = [sorted((each["user_id"], each["item_id"]) for each in stand_in.events) for stand_in in (one, eight)]
    assert clicked[0] == clicked[1]
    other = People(PEOPLE.favourites, PEOPLE.categories, seed=6)
    assert [other.clicks(user, "abc", 0) for user in other.favourites] != [
        PEOPLE.clicks(user, "abc", 0) for user in PEOPLE.favourites
    ]


def test_clicks_have_the_planted_frequencies():
    """The share of clicks at a position is the taste times the attention to the position."""
    assert PEOPLE.chance("user_1", "a", 1) == LIKED
    assert PEOPLE.chance("user_1", "c", 3) == pytest.approx(LIKED / 3)
    assert PEOPLE.chance("user_1", "unheard-of", 2) == pytest.approx(OTHER / 2)
    numbers = range(4000)
    clicked = Counter(item for number in numbers for item in PEOPLE.clicks("user_1", "abc", number))
    # Draws are seeded, so the figures never change; the bound is four standard errors.
    assert clicked["a"] / len(numbers) == pytest.approx(LIKED, abs=0.032)
    assert clicked["c"] / len(numbers) == pytest.approx(LIKED / 3, abs=0.024)
    assert PEOPLE.expected_clicks("user_1", "abc") == pytest.approx(LIKED + OTHER / 2 + LIKED / 3)


def test_newcomers_view_an_item_before_their_lists():
    """Each newcomer views an item of the favourite category without an exposure, then looks at all lists in turn."""
    stand_in = StandIn()

    async def go() -> Simulated:
        transport = httpx.MockTransport(stand_in)
        async with AsyncClient("http://recommend", events_url="http://broker", transport=transport) as client:
            return await receive_newcomers(PEOPLE, client, lists=2, top_k=3, callers=4, pause_s=0.0)

    found = asyncio.run(go())
    assert Counter(stand_in.asked) == dict.fromkeys(PEOPLE.favourites, 2)
    viewed = [each["user_id"] for each in stand_in.events if each["kind"] == "view"]
    assert sorted(viewed) == sorted(PEOPLE.favourites)
    assert len(found.looks) == 80
    expected = sum(len(PEOPLE.clicks(user, "abc", number)) for user in PEOPLE.favourites for number in range(2))
    assert found.summary()["clicks"] == expected == len(stand_in.events) - len(viewed)


def test_active_people_click_more_often():
    """The activity of a person multiplies each click's probability, and the others keep theirs."""
    active = replace(PEOPLE, activity={"user_1": 1.1})
    for position, item in enumerate("abc", 1):
        assert active.chance("user_1", item, position) == pytest.approx(1.1 * PEOPLE.chance("user_1", item, position))
        assert active.chance("user_2", item, position) == PEOPLE.chance("user_2", item, position)


def test_what_is_lost_is_counted():
    """Lists without an exposure, and clicks that the broker refuses, are counted and described."""
    unnamed = run(StandIn(names=False))
    assert (unnamed.unnamed, unnamed.looks) == (120, {})
    refused = run(StandIn(takes_events=False))
    assert refused.unsent > 0
    assert refused.summary()["clicks"] == 0
    assert f"{refused.unsent} unsent" in describe(refused)


def test_the_people_of_the_demo_like_what_the_demo_planted(demo):
    """Each user of the demo prefers the items of the user's planted category."""
    people = demo_people(bias=0.0, seed=1)
    liked = next(item for item in demo.items if item.attributes["category"] == (demo.tastes["user_3"],))
    assert people.chance("user_3", liked.item_id, 9) == LIKED
    assert len(people.favourites) == 1000


@pytest.mark.may_block
def test_without_a_pipeline_the_verb_says_how_to_start_one(tmp_path, capsys):
    """The verb fails with the command to run, and an address elsewhere needs the address of its broker."""
    assert main(["simulate", "--state-dir", str(tmp_path), "--port", "9"]) == 1
    assert "./run.sh up" in capsys.readouterr().err
    assert main(["simulate", "--url", "http://127.0.0.1:9"]) == 2
    assert "--events-url" in capsys.readouterr().err
