"""The callers and their requests, and the load test's record of them."""

import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.wire.problems import InvalidRequestError, NotJsonError
from loadtests.answers import LoadAnswer
from loadtests.ledger import Ledger
from loadtests.population import Population, known_users
from loadtests.traffic import MISTAKES, SHARES, Traffic
from recsys.contracts import wire
from recsys.contracts.events import interaction

URL, EVENTS_URL = "http://recommend", "http://extract-features"


def make(*, events_url: str | None = EVENTS_URL, token: str = "") -> tuple[Traffic, Ledger]:
    rng, ledger = random.Random(1), Ledger()
    population = Population(known_users(None, most=20), exponent=1.0, rng=rng, run="r")
    return Traffic(
        url=URL, events_url=events_url, population=population, ledger=ledger, rng=rng, run="r", token=token
    ), ledger


def answer_with(exchange, *item_ids: str) -> LoadAnswer:
    asked = json.loads(exchange.body)
    items = [{"item_id": item_id, "score": 1.0} for item_id in item_ids]
    return LoadAnswer(200, json.dumps({"user_id": asked["user_id"], "recommendations": items}).encode(), "total;dur=1")


def test_popular_users_call_more_often():
    """With exponent 1 the first of 1000 users calls twice as often as the second and ten times as often as the 10th."""
    population = Population(known_users(None, most=1000), exponent=1.0, rng=random.Random(0), run="r")
    calls = [count for _, count in Counter(population.returning() for _ in range(40_000)).most_common()]
    assert calls[0] / calls[1] == pytest.approx(2, rel=0.15)
    assert calls[0] / calls[9] == pytest.approx(10, rel=0.25)


def test_exponent_zero_gives_equal_users():
    """With exponent 0 all users call about equally often."""
    population = Population(known_users(None, most=10), exponent=0.0, rng=random.Random(0), run="r")
    calls = Counter(population.returning() for _ in range(10_000))
    assert len(calls) == 10
    assert max(calls.values()) < 1.3 * min(calls.values())


def test_known_users_come_from_a_file(tmp_path):
    """Each line is an id, with spaces and all characters; a long file gives a sample, and an empty file is an error."""
    file = tmp_path / "ids"
    file.write_text("ann\r\nben b\u2028.\n\ncat\n")
    assert known_users(file, most=3) == ["ann", "ben b\u2028.", "cat"]
    assert len(set(known_users(file, most=2))) == 2
    assert known_users(None, most=2) == ["user_1", "user_2"]
    file.write_text("\n")
    with pytest.raises(ValueError, match=f"{file}: has no user ids"):
        known_users(file, most=2)


def test_newcomers_are_new():
    """A newcomer is neither a returning user nor a newcomer of another run."""
    one, other = (
        Population(known_users(None, most=5), exponent=1, rng=random.Random(0), run=run) for run in ("a", "b")
    )
    seen = [population.newcomer() for population in (one, other) for _ in range(3)]
    assert len(set(seen)) == 6
    assert not set(seen) & set(one.ids)


def test_every_kind_is_sent_in_its_share():
    """Each kind of request is drawn about as often as its share says, once there are items to click."""
    traffic, ledger = make()
    kinds: Counter[str] = Counter()
    for _ in range(5000):
        exchange = traffic.draw()
        kinds[exchange.kind] += 1
        if exchange.kind in {"returning", "newcomer"}:
            exchange.judge(answer_with(exchange, "item_1", "item_2"))
        ledger.offer("user_1", ["item_1"])
    assert {kind: kinds[kind] / 50 for kind in SHARES} == pytest.approx(dict(SHARES), abs=2)


def test_a_clicked_item_must_not_be_shown_again():
    """An item of an accepted event belongs to the history that later answers are judged by."""
    traffic, ledger = make()
    asked = traffic.make("newcomer")
    assert asked.judge(answer_with(asked, "item_1")).fault is None
    user_id = json.loads(asked.body)["user_id"]
    click = traffic.make("event")
    known_before = ledger.known(user_id)
    assert click.judge(LoadAnswer(202)).fault is None
    assert known_before == frozenset()
    assert ledger.known(user_id) == {"item_1"}


def test_stored_histories_are_used_to_judge_answers():
    """An answer with an item of the user's stored history is wrong."""
    traffic, ledger = make()
    for user in range(1, 21):
        ledger.learn(f"user_{user}", ["item_9", "item_8"])
    asked = traffic.make("returning")
    assert asked.judge(answer_with(asked, "item_8")).fault == "an item of the user's history"
    assert asked.judge(answer_with(asked, "item_7")).fault is None


def test_a_refused_event_changes_nothing():
    """An item of a refused event does not belong to the history."""
    traffic, ledger = make()
    ledger.offer("user_1", ["item_1"])
    assert traffic.make("event").judge(LoadAnswer(503)).fault == "status 503"
    assert ledger.known("user_1") == frozenset()


def test_without_an_event_url_no_events_are_sent():
    """Without a URL for events the caller sends a request for recommendations instead."""
    traffic, ledger = make(events_url=None)
    ledger.offer("user_1", ["item_1"])
    assert traffic.make("event").kind == "returning"
    assert not traffic.sends_events


def test_events_are_valid():
    """An event has a unique id, and extract_features accepts its data."""
    traffic, ledger = make()
    ids = set()
    for number in range(5):
        ledger.offer(f"user_{number}", ["item_1"])
        event = traffic.make("event")
        assert event.url == EVENTS_URL
        assert interaction.decode(event.body).item_id == "item_1"
        ids.add((event.headers["ce-source"], event.headers["ce-id"]))
    assert len(ids) == 5


def test_requests_are_valid():
    """A request for recommendations satisfies the contract and carries the token."""
    traffic, _ = make(token="secret")
    asked = traffic.make("returning")
    assert wire.recommend_request.decode(asked.body).user_id.startswith("user_")
    assert asked.headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("mistake", [each for each in MISTAKES if each.status != 415], ids=lambda each: repr(each.body))
def test_mistakes_are_invalid(mistake):
    """The contract refuses each deliberate mistake for the expected reason."""
    wanted = {400: NotJsonError, 422: InvalidRequestError}[mistake.status]
    with pytest.raises(wanted):
        wire.recommend_request.decode(mistake.body)


@given(st.lists(st.integers(0, 2000), max_size=1500))
def test_the_ledger_keeps_the_newest_items(numbers):
    """The ledger keeps a user's newest items, and no more than the pipeline reads."""
    ledger = Ledger()
    for number in numbers:
        ledger.accept("u", f"item_{number}")
    known = ledger.known("u")
    newest = list(dict.fromkeys(f"item_{number}" for number in reversed(numbers)))[:900]
    assert known == frozenset(newest)


def test_a_long_history_loses_its_oldest_items():
    """The ledger forgets the oldest items of a history that exceeds its limit."""
    ledger = Ledger()
    ledger.learn("u", [f"item_{number}" for number in range(1000)])
    assert "item_0" in ledger.known("u")
    assert "item_999" not in ledger.known("u")
    assert ledger.users == 1


def test_an_offer_is_used_once():
    """A user must be shown something before clicking again."""
    ledger, rng = Ledger(), random.Random(0)
    ledger.offer("u", ["a"])
    ledger.offer("v", [])
    assert ledger.take_offer(rng) == ("u", "a")
    assert ledger.take_offer(rng) is None
