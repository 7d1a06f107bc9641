"""
Feature stores whose disk is full, whose file is taken away, whose clock jumps, whose database another program uses.
"""

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import aclosing, closing
from pathlib import Path

import pytest
from redis import Redis

from chassis.environment import SettingsError
from functions.extract_features.settings import Settings
from localkn.processes import free_port
from recstore.erasures import digest_user
from recstore.memory import MemoryStore
from recstore.port import EventOutcome, FeatureStore, StoreFormatError, StoreMissingError, StoreUnavailableError
from recstore.redis import RedisStore
from recstore.sqlite import SqliteStore
from recstore.urls import open_store
from recsys.features import UNKNOWN_FEATURES
from recsys.records import Interaction, UserRecord
from tests.running import ROOT, shell_command
from tests.waiting import LIMIT_S
from tools.bench.redis_server import RedisServer

pytestmark = pytest.mark.may_block

NEW, SEEN = EventOutcome.ACCEPTED, EventOutcome.REPEATED
ANN = UserRecord("ann", "25-34")

INGEST = """
import asyncio, resource, sys
from pathlib import Path
from recsys.records import Interaction
from recstore.port import StoreUnavailableError
from tests.waiting import LIMIT_S
from recstore.sqlite import SqliteStore

async def ingest(path, limit):
    store = SqliteStore(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    refused = 0
    for number in range(3000):
        event = Interaction("/s", f"{number}", f"u{number % 50}", "view", 1_800_000_000_000_000, f"item-{number}" * 4)
        try:
            await store.apply([event])
        except StoreUnavailableError as error:
            refused += 1
            reason = str(error)
        else:
            print("accepted", number)
    print("refused", refused, reason)
    await store.aclose()

asyncio.run(ingest(Path(sys.argv[1]), int(sys.argv[2])))
"""


def view(number: int, *, user_id: str = "ann") -> Interaction:
    return Interaction("/s", f"{number}", user_id, "view", 1_800_000_000_000_000, "a")


def test_a_full_disk_acknowledges_only_what_is_stored(tmp_path):
    """When the files cannot grow, events are refused; each one that was accepted is in the store after a restart."""
    path = tmp_path / "store.db"

    async def fill() -> None:
        async with aclosing(SqliteStore(path, create=True)) as store:
            await store.replace([ANN], population=UNKNOWN_FEATURES)

    asyncio.run(fill())
    command = [sys.executable, "-c", INGEST, str(path), "200000"]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    accepted = {int(line.split()[1]) for line in lines if line.startswith("accepted")}
    assert 0 < len(accepted) < 3000
    assert "check the disk" in lines[-1] or "free some disk space" in lines[-1]

    async def look() -> None:
        async with aclosing(SqliteStore(path)) as store:
            await store.verify()
            assert sum([record.views async for record in store.scan()]) >= len(accepted)
            # A repeated delivery of what was accepted counts no more; what was refused counts now.
            again = await store.apply([view(number, user_id=f"u{number % 50}") for number in range(3000)])
            assert {again[number] for number in accepted} == {SEEN}
            assert sum([record.views async for record in store.scan()]) == 3000

    asyncio.run(look())


@pytest.mark.parametrize("take", [Path.unlink, lambda path: path.rename(path.with_name("elsewhere.db"))])
async def test_a_file_that_was_taken_away_takes_no_events(tmp_path, take):
    """After the file is deleted, the store refuses events, so that they are delivered again later."""
    store = SqliteStore(tmp_path / "store.db", create=True)
    await store.replace([ANN], population=UNKNOWN_FEATURES)
    assert await store.apply([view(1)]) == [NEW]
    take(tmp_path / "store.db")
    with pytest.raises(StoreUnavailableError, match="removed or replaced while in use; restart"):
        await store.apply([view(2)])
    await store.aclose()
    with pytest.raises(StoreMissingError):
        SqliteStore(tmp_path / "store.db")


@pytest.mark.parametrize("created", [True, False])
async def test_a_log_that_was_taken_away_takes_no_events(tmp_path, created):
    """After the write-ahead log is deleted, other processes and the next start would not find the events."""
    path = tmp_path / "store.db"
    store = SqliteStore(path, create=True)
    await store.replace([ANN], population=UNKNOWN_FEATURES)
    if not created:
        await store.aclose()
        store = SqliteStore(path)
    path.with_name("store.db-wal").unlink()
    with pytest.raises(StoreUnavailableError, match="removed or replaced while in use; restart"):
        await store.apply([view(1)])
    await store.aclose()


async def test_a_foreign_database_is_left_as_it_is(tmp_path):
    """Another program's file is refused with and without `create`, and not one byte of it changes."""
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    for create in (False, True):
        with pytest.raises(StoreFormatError, match="another program's"):
            SqliteStore(path, create=create)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["theirs.db"]


async def test_a_store_of_another_journal_mode_is_taken(tmp_path):
    """A backup made with VACUUM INTO has no write-ahead log; opening it as a store gives it one."""
    store = SqliteStore(tmp_path / "store.db", create=True)
    await store.replace([ANN], population=UNKNOWN_FEATURES)
    await store.aclose()
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        connection.execute(f"VACUUM INTO '{tmp_path}/backup.db'")
    async with aclosing(SqliteStore(tmp_path / "backup.db")) as backup:
        assert await backup.apply([view(1)]) == [NEW]


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
async def test_a_clock_that_jumps_counts_no_event_twice(kind, tmp_path, request):
    """Within the window a repeated event is known, also if the clock jumped ahead or back for a moment."""
    now = [1_800_000_000.0]

    def opened() -> FeatureStore:
        if kind == "memory":
            return MemoryStore(window_s=1000, clock=lambda: now[0])
        if kind == "sqlite":
            return SqliteStore(tmp_path / "store.db", create=True, window_s=1000, clock=lambda: now[0])
        server: RedisServer = request.getfixturevalue("redis_server")
        server.flush()
        return RedisStore(server.url, window_s=1000, clock=lambda: now[0])

    async with aclosing(opened()) as store:
        assert await store.apply([view(1)]) == [NEW]
        for jump in (-3600.0, -10.0, 900.0, -86_400.0, 0.0):
            now[0] = 1_800_000_000.0 + jump
            assert await store.apply([view(1), view(int(jump))]) == [SEEN, NEW]
        (record,) = [record async for record in store.scan()]
        assert record.views == 6


async def use(store: FeatureStore) -> None:
    await store.population()
    await store.read(["ann"], history=5)
    await store.apply([view(1)])


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"recsys:current": "theirs"}, "holds no number"),
        ({"recsys:current": "²"}, "holds no number"),
        ({"recsys:current": ["a", "list"]}, "another type"),
        ({"recsys:0:population": "{"}, "cannot be read"),
        ({"recsys:0:population": '{"age_group": 7}'}, "cannot be read"),
        ({f"recsys:0:{{{digest_user('ann')}}}:u": "text"}, "another type|cannot be read"),
        (
            {f"recsys:0:{{{digest_user('ann')}}}:u": {"age_group": "55+", "views": "many"}},
            "cannot be read|another type",
        ),
        (
            {
                f"recsys:0:{{{digest_user('ann')}}}:u": {"age_group": "55+"},
                f"recsys:0:{{{digest_user('ann')}}}:t": "text",
            },
            "another type|cannot be read",
        ),
    ],
)
async def test_foreign_content_in_the_stores_keys_is_refused(redis_server: RedisServer, keys, says):
    """The store refuses a database in which another program uses the store's keys, and names the fault."""
    redis_server.flush()
    with Redis(port=redis_server.port) as client:
        for key, value in keys.items():
            if isinstance(value, str):
                client.set(key, value)
            elif isinstance(value, list):
                client.rpush(key, *value)
            else:
                client.hset(key, mapping=value)
    async with aclosing(open_store(redis_server.url)) as store:
        with pytest.raises(StoreFormatError, match=rf"Redis at .*:{redis_server.port}, database 0: .*({says})"):
            await use(store)


async def test_other_keys_in_a_database_are_no_fault(redis_server: RedisServer):
    """The store neither reads nor deletes another program's keys."""
    redis_server.flush()
    with Redis(port=redis_server.port) as client:
        client.set("theirs", "1")
        async with aclosing(open_store(redis_server.url)) as store:
            assert await store.population() is None
            await store.replace([ANN], population=UNKNOWN_FEATURES)
            assert await store.population() == UNKNOWN_FEATURES
        assert client.get("theirs") == b"1"


async def test_a_password_is_in_no_message(free_port):
    """The error for an unreachable Redis names its address without the password."""
    async with aclosing(open_store(f"redis://me:s3cret@127.0.0.1:{free_port}/2")) as store:
        with pytest.raises(StoreUnavailableError, match=f"Redis at 127.0.0.1:{free_port}, database 2") as raised:
            await store.population()
    assert "s3cret" not in str(raised.value)


def start(url: str) -> "subprocess.CompletedProcess[str]":
    env = {"AUTH": "off", "METRICS_PORT": "0", "PORT": str(free_port()), "HOST": "127.0.0.1", "FEATURE_STORE_URL": url}
    return subprocess.run(
        shell_command("extract_features"),
        cwd=ROOT,
        env=env,
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def test_an_instance_without_its_store_ends_with_the_reason(tmp_path):
    """extract_features refuses to start on a store that does not exist, logs why once, and makes no file."""
    ended = start(f"sqlite:///{tmp_path}/typo.db")
    failed = [line for line in ended.stderr.splitlines() if "start_failed" in line]
    assert (ended.returncode, len(failed)) == (1, 1), ended.stderr
    assert "typo.db: no such feature store; run ./run.sh train" in failed[0]
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", ["shards=2", "ssl_ca_certs=/ca.pem", "socket_timeout=long"])
def test_an_option_that_redis_does_not_take_is_a_fault_of_the_url(options):
    """The message names the option; such a URL does not end the start with a traceback."""
    with pytest.raises(StoreFormatError, match=f"options of the URL of Redis .*{options.partition('=')[0]}"):
        open_store(f"redis://127.0.0.1/0?{options}")


async def test_a_missing_file_of_authorities_is_the_reason(free_port: int):
    """The message names the file and gives the reason of the operating system."""
    async with aclosing(open_store(f"rediss://127.0.0.1:{free_port}/0?ssl_ca_certs=/nowhere/ca.pem")) as store:
        with pytest.raises(
            StoreUnavailableError, match=r"/nowhere/ca.pem cannot be read \(No such file or directory\)"
        ):
            await store.population()


@pytest.mark.parametrize("url", ["foo", "sqlite://", "redis://", "redis://127.0.0.1:x/0", "redis://h/a", "http://["])
def test_a_wrong_url_is_a_wrong_setting(url):
    """An invalid store URL is reported with the other invalid settings before anything starts."""
    with pytest.raises(SettingsError, match="FEATURE_STORE_URL: .*sqlite:///FILE"):
        Settings.from_env({"AUTH": "off", "FEATURE_STORE_URL": url})
