"""Who calls, with what, and what the load test remembers of it."""

import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.wire.problems import InvalidRequestError, NotJsonError
from loadtests.answers import Answer
from loadtests.ledger import Ledger
from loadtests.population import Population
from loadtests.traffic import MISTAKES, SHARES, Traffic
from recsys.contracts import wire
from recsys.contracts.events import interaction

URL, EVENTS_URL = "http://recommend", "http://extract-features"


def make(*, events_url: str | None = EVENTS_URL, token: str = "") -> tuple[Traffic, Ledger]:
    rng, ledger = random.Random(1), Ledger()
    population = Population(size=20, exponent=1.0, rng=rng, run="r")
    return Traffic(
        url=URL, events_url=events_url, population=population, ledger=ledger, rng=rng, run="r", token=token
    ), ledger


def answer_with(exchange, *item_ids: str) -> Answer:
    asked = json.loads(exchange.body)
    items = [{"item_id": item_id, "score": 1.0} for item_id in item_ids]
    return Answer(200, json.dumps({"user_id": asked["user_id"], "recommendations": items}).encode(), "total;dur=1")


def test_popular_users_call_more():
    """With exponent 1 the first user of 1000 calls twice as often as the second, ten times as often as the tenth."""
    population = Population(size=1000, exponent=1.0, rng=random.Random(0), run="r")
    calls = [count for _, count in Counter(population.returning() for _ in range(40_000)).most_common()]
    assert calls[0] / calls[1] == pytest.approx(2, rel=0.15)
    assert calls[0] / calls[9] == pytest.approx(10, rel=0.25)


def test_exponent_zero_makes_all_alike():
    """Without an exponent everybody calls about as often."""
    population = Population(size=10, exponent=0.0, rng=random.Random(0), run="r")
    calls = Counter(population.returning() for _ in range(10_000))
    assert len(calls) == 10
    assert max(calls.values()) < 1.3 * min(calls.values())


def test_newcomers_are_new():
    """A newcomer is never a returning user, nor one of another run."""
    one, other = (Population(size=5, exponent=1, rng=random.Random(0), run=run) for run in ("a", "b"))
    seen = [population.newcomer() for population in (one, other) for _ in range(3)]
    assert len(set(seen)) == 6
    assert not set(seen) & set(one.ids)


def test_all_kinds_are_sent_in_their_shares():
    """Every kind of request is drawn about as often as its share says, once there is something to click on."""
    traffic, ledger = make()
    kinds: Counter[str] = Counter()
    for _ in range(5000):
        exchange = traffic.draw()
        kinds[exchange.kind] += 1
        if exchange.kind in {"returning", "newcomer"}:
            exchange.judge(answer_with(exchange, "item_1", "item_2"))
        ledger.offer("user_1", ["item_1"])
    assert {kind: kinds[kind] / 50 for kind in SHARES} == pytest.approx(dict(SHARES), abs=2)


def test_what_is_clicked_is_not_shown_again():
    """An item that an accepted event named counts as history for the next answer, and not for the one in flight."""
    traffic, ledger = make()
    asked = traffic.make("newcomer")
    assert asked.judge(answer_with(asked, "item_1")).fault is None
    user_id = json.loads(asked.body)["user_id"]
    click = traffic.make("event")
    known_before = ledger.known(user_id)
    assert click.judge(Answer(202)).fault is None
    assert known_before == frozenset()
    assert ledger.known(user_id) == {"item_1"}


def test_history_of_the_store_is_held_against_answers():
    """What the ledger learnt of a user makes an answer with it wrong."""
    traffic, ledger = make()
    for user in range(1, 21):
        ledger.learn(f"user_{user}", ["item_9", "item_8"])
    asked = traffic.make("returning")
    assert asked.judge(answer_with(asked, "item_8")).fault == "an item of the user's history"
    assert asked.judge(answer_with(asked, "item_7")).fault is None


def test_a_refused_event_changes_nothing():
    """An event that was not taken in is no history."""
    traffic, ledger = make()
    ledger.offer("user_1", ["item_1"])
    assert traffic.make("event").judge(Answer(503)).fault == "status 503"
    assert ledger.known("user_1") == frozenset()


def test_without_a_door_for_events_none_are_sent():
    """Where events cannot go the caller asks instead."""
    traffic, ledger = make(events_url=None)
    ledger.offer("user_1", ["item_1"])
    assert traffic.make("event").kind == "returning"
    assert not traffic.sends_events


def test_events_are_what_the_function_takes():
    """An event has its own id, and data that extract_features accepts."""
    traffic, ledger = make()
    ids = set()
    for number in range(5):
        ledger.offer(f"user_{number}", ["item_1"])
        event = traffic.make("event")
        assert event.url == EVENTS_URL
        assert interaction.decode(event.body).item_id == "item_1"
        ids.add((event.headers["ce-source"], event.headers["ce-id"]))
    assert len(ids) == 5


def test_questions_are_what_the_door_takes():
    """A request that should be answered is valid."""
    traffic, _ = make(token="secret")
    asked = traffic.make("returning")
    assert wire.recommend_request.decode(asked.body).user_id.startswith("user_")
    assert asked.headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("mistake", [each for each in MISTAKES if each.status != 415], ids=lambda each: repr(each.body))
def test_mistakes_are_what_the_door_refuses(mistake):
    """A request that should be refused is refused by the contract, for the reason expected."""
    wanted = {400: NotJsonError, 422: InvalidRequestError}[mistake.status]
    with pytest.raises(wanted):
        wire.recommend_request.decode(mistake.body)


@given(st.lists(st.integers(0, 2000), max_size=1500))
def test_the_ledger_keeps_the_newest(numbers):
    """However much a user does, what is remembered is the newest, and never more than the pipeline looks at."""
    ledger = Ledger()
    for number in numbers:
        ledger.accept("u", f"item_{number}")
    known = ledger.known("u")
    newest = list(dict.fromkeys(f"item_{number}" for number in reversed(numbers)))[:900]
    assert known == frozenset(newest)


def test_a_history_is_learnt_newest_first():
    """Of a history that is too long the oldest items are forgotten."""
    ledger = Ledger()
    ledger.learn("u", [f"item_{number}" for number in range(1000)])
    assert "item_0" in ledger.known("u")
    assert "item_999" not in ledger.known("u")
    assert ledger.users == 1


def test_offers_are_taken_once():
    """Whoever clicked has to be shown something before clicking again."""
    ledger, rng = Ledger(), random.Random(0)
    ledger.offer("u", ["a"])
    ledger.offer("v", [])
    assert ledger.take_offer(rng) == ("u", "a")
    assert ledger.take_offer(rng) is None
