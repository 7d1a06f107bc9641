"""`./run.sh users show`: what the store holds of a user."""

import asyncio
import json
from contextlib import aclosing
from pathlib import Path

import pytest
from redis import Redis

from knative.components.eventing.dead_letters import Letters, as_line
from recstore.sqlite import SqliteStore
from recsys.features import UNKNOWN_FEATURES
from recsys.records import HistoryItem, UserRecord
from tools.cli.verbs import main

pytestmark = pytest.mark.may_block

STRUCTURED = "application/cloudevents+json"

ANN = UserRecord(
    "ann",
    "25-34",
    views=25,
    purchases=1,
    sessions=2,
    session_ms=61_000,
    as_of_us=1_700_000_000_000_000,
    history=[HistoryItem(f"i{place}", 1.0, 1000 - place) for place in range(25)],
)


@pytest.fixture
def url(tmp_path: Path) -> str:
    async def fill() -> None:
        async with aclosing(SqliteStore(tmp_path / "a.db", create=True)) as store:
            await store.replace([ANN, UserRecord("bob", "unknown")], population=UNKNOWN_FEATURES)

    asyncio.run(fill())
    return f"sqlite:///{tmp_path / 'a.db'}"


def test_a_user_is_shown_with_counters_history_and_features(url, capsys):
    """The verb prints each counter, the newest items and the features; --json prints all items."""
    assert main(["users", "show", "ann", "--store", url]) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (shown["views"], shown["purchases"], shown["age_group"]) == ("25", "1", "25-34")
    assert shown["newest"].endswith("2023-11-14T22:13:20+00:00")
    assert shown["items,"].endswith("i18, i19 and 5 more")
    assert main(["users", "show", "ann", "--store", url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recent"] == [item.item_id for item in ANN.history]
    assert found["features"]["avg_session_duration"] == 30.5


def test_a_user_without_interactions_is_shown(url, capsys):
    """A user with a profile alone has no newest interaction and no items."""
    assert main(["users", "show", "bob", "--store", url]) == 0
    shown = capsys.readouterr().out
    assert "newest interaction     never" in shown
    assert "items, newest first    none" in shown


def test_an_unknown_user_and_a_missing_store_are_explained(url, tmp_path, capsys):
    """The exit status is 1, and the message says what is missing."""
    assert main(["users", "show", "eve", "--store", url]) == 1
    assert capsys.readouterr().err == "eve: the feature store holds nothing of this user; check the id\n"
    assert main(["users", "show", "ann", "--state-dir", str(tmp_path / "none")]) == 1
    assert "nothing was trained here yet" in capsys.readouterr().err


def test_dead_letters_of_a_cluster_are_removed(redis_server, tmp_path, capsys):
    """An erasure in Redis removes the user's letters that the dead-letter sink keeps, and no others."""
    redis_server.flush()
    letters = [
        as_line([("ce-subject", "ann"), ("content-type", "application/json")], b"{}"),
        as_line([("ce-subject", "%61nn"), ("content-type", "application/json")], b"{"),
        as_line([("content-type", "application/json")], b'{"user_id": "ann"}'),
        as_line([("content-type", STRUCTURED)], b'{"specversion": "1.0", "data": {"user_id": "ann"}}'),
        as_line([("content-type", "application/json")], b'{"user_id": "bob"}'),
        as_line([("content-type", STRUCTURED)], b'{"specversion": "1.0", "data": {"user_id": "bob"}}'),
        as_line([], b"\xff"),
    ]
    with Redis(port=redis_server.port, decode_responses=True) as client:
        sink = Letters(client)
        for letter in letters:
            assert sink.add(letter)
        arguments = ["users", "erase", "ann", "--store", redis_server.url, "--state-dir", str(tmp_path)]
        assert main(arguments) == 0
        assert json.loads(capsys.readouterr().out)["dead_letters"] == 4
        assert [each["letter"] for each in sink.page("")] == [json.loads(letter) for letter in letters[4:]]
        client.zadd("recsys-letters", {"7 {": 0})
        assert main(arguments) == 1
    assert "Redis key recsys-letters: 7 is not a dead letter; remove it" in capsys.readouterr().err


@pytest.mark.parametrize("user", ["", "u" * 129])
def test_an_id_that_no_user_can_have_is_refused(url, capsys, user):
    """A mistake in a script, such as an empty variable, gets no receipt."""
    assert main(["users", "erase", user, "--store", url]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"the id of a user has 1 to 128 characters, not {len(user)}; check it\n")
