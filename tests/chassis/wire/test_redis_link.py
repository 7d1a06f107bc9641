"""One connection for all simultaneous calls, against a server whose every byte the test controls."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chassis.wire.redis_link import RedisLink
from tests.chassis.wire.servers import Server, Talk, serving
from tests.virtual_time import on_virtual_time

PING = b"*1\r\n$4\r\nPING\r\n"


def link_to(port: int, timeout_s: float = 60.0) -> RedisLink:
    def make() -> Connection:
        # With RESP2 and no client name, the first bytes sent are those of the first command.
        return Connection(host="127.0.0.1", port=port, socket_timeout=None, protocol=2, driver_info=None)

    return RedisLink(make, timeout_s=timeout_s)


@asynccontextmanager
async def linked(*talks: Talk, timeout_s: float = 60.0) -> AsyncIterator[tuple[Server, RedisLink]]:
    """Serve, and open a link to the server."""
    async with serving(*talks) as server, aclosing(link_to(server.port, timeout_s)) as link:
        yield server, link


async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each PING with its number."""
    number = 0
    while await reader.readexactly(len(PING)):
        number += 1
        writer.write(b":%d\r\n" % number)


async def leave(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Close the connection immediately."""


async def ignore(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await reader.read()


def answer_once_with(answer: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(PING))
        writer.write(answer)
        await reader.read()

    return talk


async def test_simultaneous_calls_share_a_connection():
    """Each call gets the answers to its own commands, in order."""
    async with linked(count) as (server, link):
        calls = [link.ask([("PING",)] * size) for size in (1, 3, 2)]
        assert await asyncio.gather(*calls) == [[1], [2, 3, 4], [5, 6]]
        assert server.connections == 1


async def test_calls_of_one_turn_are_sent_in_one_write():
    """Calls in one turn of the event loop reach the server together."""
    arrived = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            arrived.append(data.count(PING))
            writer.write(b":0\r\n" * data.count(PING))

    async with linked(note) as (_, link):
        await link.ask([("PING",)])
        await asyncio.gather(*(link.ask([("PING",)]) for _ in range(5)))
        assert arrived == [1, 5]


async def test_an_error_reply_is_an_answer():
    """An error reply is returned in its place, and the connection stays in use."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readexactly(len(PING)):
            writer.write(b"-ERR no\r\n")

    async with linked(refuse) as (server, link):
        for _ in range(2):
            answers = await link.ask([("PING",), ("PING",)])
            assert [type(answer) for answer in answers] == [ResponseError] * 2
        assert server.connections == 1


async def test_calls_are_retried_after_the_connection_closes():
    """Every waiting call is retried over one new connection."""
    async with linked(leave, count) as (server, link):
        assert sorted(await asyncio.gather(*(link.ask([("PING",)]) for _ in range(5)))) == [[n] for n in range(1, 6)]
        assert server.connections == 2


async def test_a_server_that_keeps_closing_is_an_error():
    """A call is retried once."""
    async with linked(leave) as (server, link):
        with pytest.raises(RedisConnectionError):
            await link.ask([("PING",)])
        assert server.connections == 2


@on_virtual_time
async def test_a_timeout_closes_the_connection():
    """A call without an answer in time closes its connection, because a late answer could be taken for the next one."""
    async with linked(ignore, count, timeout_s=0.1) as (server, link):
        with pytest.raises(RedisTimeoutError):
            await link.ask([("PING",)])
        assert await link.ask([("PING",)]) == [1]
        assert server.connections == 2


@on_virtual_time
async def test_only_the_call_that_timed_out_fails(clock):
    """The connection closes for all calls, and a younger call is retried over a new one in the time it has left."""
    async with linked(ignore, count, timeout_s=0.2) as (server, link):
        older = asyncio.create_task(link.ask([("PING",)]))
        await clock.advance(0.1)
        younger = asyncio.create_task(link.ask([("PING",)]))
        with pytest.raises(RedisTimeoutError):
            await older
        assert await younger == [1]
        assert server.connections == 2


async def test_a_cancelled_call_does_not_shift_the_answers():
    """The answer of a cancelled call is dropped, and the next call gets its own."""
    async with linked(count) as (server, link):
        await link.ask([("PING",)])
        leaver = asyncio.create_task(link.ask([("PING",)]))
        await asyncio.sleep(0)
        leaver.cancel()
        assert await link.ask([("PING",)]) == [3]
        assert server.connections == 1


async def test_an_unexpected_answer_closes_the_connection(turns):
    """The link closes a connection with a surplus answer, because later answers could no longer be assigned."""
    async with linked(answer_once_with(b":1\r\n:2\r\n"), count) as (server, link):
        assert await link.ask([("PING",)]) == [1]
        await turns()
        assert await link.ask([("PING",)]) == [1]
        assert server.connections == 2


async def test_an_answer_that_is_not_redis_closes_the_connection():
    """The waiting call fails, and the next call gets a new connection."""
    async with linked(answer_once_with(b"HTTP/1.1 400 Bad Request\r\n\r\n"), count) as (server, link):
        with pytest.raises(RedisError):
            await link.ask([("PING",)])
        assert await link.ask([("PING",)]) == [1]
        assert server.connections == 2


async def test_a_call_is_retried_after_a_reset():
    """A call whose connection is reset by a dying server is retried."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(PING))
        no_farewell = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_farewell)

    async with linked(reset, count) as (server, link):
        assert await link.ask([("PING",)]) == [1]
        assert server.connections == 2


async def test_answers_are_assembled_from_pieces():
    """Answers that arrive byte by byte are complete, text is decoded, and errors inside a list stay in the list."""

    async def in_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2 * len(PING))
        for byte in b"$6\r\nna\xc3\xafve\r\n*3\r\n:1\r\n$1\r\n\xff\r\n-NOSCRIPT none\r\n":
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        await reader.read()

    async with linked(in_pieces) as (_, link):
        text, (number, odd, error) = await link.ask([("PING",)] * 2)
        assert (text, number, odd) == ("naïve", 1, "\ufffd")
        assert isinstance(error, NoScriptError)


async def test_a_call_is_retried_when_the_connection_closes_before_the_write(monkeypatch):
    """The link retries immediately after uvloop's error for a closed connection, which redis-py does not translate."""
    send = Connection.send_packed_command
    due = [RuntimeError("unable to perform operation; the handler is closed")]

    async def once_too_late(connection: Connection, packed: bytes, *, check_health: bool) -> None:
        if due:
            raise due.pop()
        await send(connection, packed, check_health=check_health)

    monkeypatch.setattr(Connection, "send_packed_command", once_too_late)
    async with linked(count) as (server, link):
        assert await link.ask([("PING",)]) == [1]
        assert server.connections == 2


async def test_a_closed_link_stays_closed():
    """Calls in flight and later calls fail instead of opening a new connection."""
    async with linked(ignore) as (server, link):
        call = asyncio.create_task(link.ask([("PING",)]))
        while not server.connections:
            await asyncio.sleep(0)
        await link.aclose()
        with pytest.raises(RedisConnectionError, match="closed"):
            await call
        with pytest.raises(RedisConnectionError, match="closed"):
            await link.ask([("PING",)])
        assert server.connections == 1


async def test_a_link_can_be_closed_while_it_connects(monkeypatch):
    """Closing a link also closes the connection that is being opened."""
    connected, go_on = asyncio.Event(), asyncio.Event()
    connect = Connection.connect

    async def slow(connection: Connection) -> None:
        await connect(connection)
        connected.set()
        await go_on.wait()

    monkeypatch.setattr(Connection, "connect", slow)
    left = asyncio.Event()

    async def note_the_end(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()
        left.set()

    async with linked(note_the_end) as (server, link):
        call = asyncio.create_task(link.ask([("PING",)]))
        await connected.wait()
        closing = asyncio.create_task(link.aclose())
        await asyncio.sleep(0)
        go_on.set()
        await closing
        with pytest.raises(RedisConnectionError, match="closed"):
            await call
        await left.wait()
        assert server.connections == 1


async def test_a_refused_connection_is_an_error(free_port):
    """A refused connection fails immediately, and a link without a connection can be closed."""
    link = link_to(free_port)
    with pytest.raises(RedisConnectionError):
        await link.ask([("PING",)])
    await link.aclose()
