from contextlib import aclosing

import pytest
from redis import Redis

from offline.demo import Demo
from recstore.urls import open_store
from recsys.contracts.wire import Features
from recsys.records import UserRecord
from tests.trained import in_store, scan
from tests.waiting import LIMIT_S
from tools.bench.redis_server import RedisServer, redis_running
from tools.cli.verbs import main
from tools.store import copy_store

pytestmark = pytest.mark.may_block

POPULATION = Features(age_group="unknown", avg_session_duration=1.0, total_purchases=2, engagement_score=0.5)


async def test_a_copy_and_back_preserves_everything(tmp_path, redis_server: RedisServer, demo: Demo):
    """A copy from SQLite to Redis and back preserves every record, weight and time."""
    redis_server.flush()
    records = demo.records[:200]
    first, second = f"sqlite:///{tmp_path}/one.db", f"sqlite:///{tmp_path}/two.db"
    async with aclosing(open_store(first, create=True)) as source:
        await source.replace(records, population=POPULATION)
    assert await copy_store(first, redis_server.url) == 200
    assert await copy_store(redis_server.url, second) == 200
    async with aclosing(open_store(second)) as target:
        assert await scan(target) == records
        assert await target.population() == POPULATION


def test_copied_users_get_a_time_to_live(redis_server: RedisServer, tmp_path):
    """With a time to live for the target, a copied user without further events expires."""
    redis_server.flush()
    url = f"sqlite:///{tmp_path}/one.db"
    fill(url)
    assert main(["store", "copy", "--from", url, "--to", redis_server.url, "--user-ttl-s", "1000"]) == 0
    with Redis(port=redis_server.port) as client:
        assert [client.ttl(key) for key in client.keys("recsys:1:{*")] == [pytest.approx(1000, abs=LIMIT_S)]


def fill(url: str) -> None:
    users = [UserRecord("ann", "25-34")]
    in_store(url, lambda store: store.replace(users, population=POPULATION), create=True)


def test_the_command_reports_the_number_of_users(tmp_path, capsys):
    """The command prints the number of copied users, and one sentence for a store that it cannot open."""
    one, two = f"sqlite:///{tmp_path}/one.db", f"sqlite:///{tmp_path}/two.db"
    fill(one)
    assert main(["store", "copy", "--from", one, "--to", two]) == 0
    assert capsys.readouterr().out == "users copied: 1\n"
    assert main(["store", "copy", "--from", "ftp://x", "--to", two]) == 2
    assert "'ftp://x' names no feature store" in capsys.readouterr().err
    assert main(["store", "copy", "--from", one, "--to", one]) == 2
    assert main(["store", "copy", "--from", one, "--to", two, "--user-ttl-s", "-1"]) == 2


def test_the_password_comes_from_the_environment(tmp_path, monkeypatch, capsys):
    """With FEATURE_STORE_PASSWORD the copy succeeds; without it, the error says that the password is missing."""
    source = f"sqlite:///{tmp_path}/one.db"
    fill(source)
    with redis_running(tmp_path, "--requirepass", "s3cret") as server:
        words = ["store", "copy", "--from", source, "--to", server.url]
        assert main(words) == 1
        assert "s3cret" not in capsys.readouterr().err
        monkeypatch.setenv("FEATURE_STORE_PASSWORD", "s3cret")
        assert main(words) == 0
        (copied,) = in_store(server.url, scan, password="s3cret")
        assert copied.user_id == "ann"
