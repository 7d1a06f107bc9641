import pytest

from offline.demo import make_demo
from recsys.contracts.wire import Features
from recsys.stores.opening import open_store
from tools import store
from tools.redis_server import RedisServer

pytestmark = pytest.mark.may_block

POPULATION = Features(age_group="unknown", avg_session_duration=1.0, total_purchases=2, engagement_score=0.5)


async def test_a_store_survives_the_way_there_and_back(tmp_path, redis_server: RedisServer):
    """From SQLite to Redis and back every record, weight and time is what it was."""
    redis_server.flush()
    records = make_demo().records[:200]
    first, second = f"sqlite:///{tmp_path}/one.db", f"sqlite:///{tmp_path}/two.db"
    source, middle, target = open_store(first), open_store(redis_server.url), open_store(second)
    await source.replace(records, population=POPULATION)
    assert await store.copy_store(source, middle) == 200
    assert await store.copy_store(middle, target) == 200
    assert [record async for record in target.scan()] == records
    assert await target.population() == POPULATION
    for opened in (source, middle, target):
        await opened.aclose()


def test_the_verb_tells_how_many(tmp_path, capsys):
    """The command copies and counts; what cannot be opened is one sentence."""
    one, two = f"sqlite:///{tmp_path}/one.db", f"sqlite:///{tmp_path}/two.db"
    assert store.main(["copy", "--from", one, "--to", two]) == 0
    assert capsys.readouterr().out == "copied 0 users\n"
    assert store.main(["copy", "--from", "ftp://x", "--to", two]) == 1
    assert "is no feature store" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        store.main(["copy", "--from", one, "--to", one])
