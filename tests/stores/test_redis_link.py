"""One connection for all calls at once, against a server whose every byte the test decides."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from recsys.stores.redis_link import RedisLink

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PING = b"*1\r\n$4\r\nPING\r\n"


class Server:
    """Counts connections; *talks* say what happens on each of them, the last one on all further ones."""

    def __init__(self, *talks: Talk) -> None:
        self._talks = list(talks)
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = self._talks[min(self.connections, len(self._talks) - 1)]
        self.connections += 1
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def link(self, timeout_s: float = 1.0) -> RedisLink:
        def make() -> Connection:
            # RESP2 without a client name: nothing is said before the first command.
            return Connection(host="127.0.0.1", port=self.port, socket_timeout=None, protocol=2, driver_info=None)

        return RedisLink(make, timeout_s=timeout_s)


@asynccontextmanager
async def serving(*talks: Talk) -> AsyncIterator[Server]:
    server = Server(*talks)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each PING with its number."""
    number = 0
    while await reader.readexactly(len(PING)):
        number += 1
        writer.write(b":%d\r\n" % number)


async def leave(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Close at once."""


async def ignore(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await reader.read()


def answer_once_with(answer: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(PING))
        writer.write(answer)
        await reader.read()

    return talk


async def test_calls_at_once_share_a_connection_and_keep_apart():
    """Each gets the answers to its own commands, in their order."""
    async with serving(count) as server:
        link = server.link()
        calls = [link.ask([("PING",)] * size) for size in (1, 3, 2)]
        assert await asyncio.gather(*calls) == [[1], [2, 3, 4], [5, 6]]
        assert server.connections == 1
        await link.aclose()


async def test_calls_of_one_turn_are_one_write():
    """What is asked in one turn of the event loop arrives together."""
    arrived = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            arrived.append(data.count(PING))
            writer.write(b":0\r\n" * data.count(PING))

    async with serving(note) as server:
        link = server.link()
        await link.ask([("PING",)])
        await asyncio.gather(*(link.ask([("PING",)]) for _ in range(5)))
        assert arrived == [1, 5]
        await link.aclose()


async def test_an_error_is_an_answer():
    """What Redis refuses is handed back in its place; the connection is as good as before."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readexactly(len(PING)):
            writer.write(b"-ERR no\r\n")

    async with serving(refuse) as server:
        link = server.link()
        for _ in range(2):
            answers = await link.ask([("PING",), ("PING",)])
            assert [type(answer) for answer in answers] == [ResponseError] * 2
        assert server.connections == 1
        await link.aclose()


async def test_a_connection_that_was_closed_costs_another_try():
    """Whoever asks next gets an answer; all who were waiting do, over one new connection."""
    async with serving(leave, count) as server:
        link = server.link()
        assert sorted(await asyncio.gather(*(link.ask([("PING",)]) for _ in range(5)))) == [[n] for n in range(1, 6)]
        assert server.connections == 2
        await link.aclose()


async def test_a_server_that_keeps_closing_is_an_error():
    """There is one more try, not one after the other."""
    async with serving(leave) as server:
        link = server.link()
        with pytest.raises(RedisConnectionError):
            await link.ask([("PING",)])
        assert server.connections == 2
        await link.aclose()


async def test_no_answer_in_time_is_an_error_and_ends_the_connection():
    """A late answer could be taken for the next one's."""
    async with serving(ignore, count) as server:
        link = server.link(timeout_s=0.1)
        with pytest.raises(RedisTimeoutError):
            await link.ask([("PING",)])
        assert await link.ask([("PING",)]) == [1]
        assert server.connections == 2
        await link.aclose()


async def test_only_those_who_waited_too_long_are_told_so():
    """The connection ends for all; a younger call is asked again over the next one, in what it has left."""
    async with serving(ignore, count) as server:
        link = server.link(timeout_s=0.2)
        older = asyncio.create_task(link.ask([("PING",)]))
        await asyncio.sleep(0.1)
        younger = asyncio.create_task(link.ask([("PING",)]))
        with pytest.raises(RedisTimeoutError):
            await older
        assert await younger == [1]
        assert server.connections == 2
        await link.aclose()


async def test_whoever_leaves_takes_no_answer_along():
    """A cancelled call's answer comes and is dropped; the next call gets its own."""
    async with serving(count) as server:
        link = server.link()
        await link.ask([("PING",)])
        leaver = asyncio.create_task(link.ask([("PING",)]))
        await asyncio.sleep(0)
        leaver.cancel()
        assert await link.ask([("PING",)]) == [3]
        assert server.connections == 1
        await link.aclose()


async def test_an_answer_nobody_asked_for_ends_the_connection():
    """Whatever it belongs to, what follows could not be told apart any more."""
    async with serving(answer_once_with(b":1\r\n:2\r\n"), count) as server:
        link = server.link()
        assert await link.ask([("PING",)]) == [1]
        await asyncio.sleep(0.05)
        assert await link.ask([("PING",)]) == [1]
        assert server.connections == 2
        await link.aclose()


async def test_no_protocol_ends_the_connection():
    """Whoever waits is told; the next call has a connection of its own."""
    async with serving(answer_once_with(b"HTTP/1.1 400 Bad Request\r\n\r\n"), count) as server:
        link = server.link()
        with pytest.raises(RedisError):
            await link.ask([("PING",)])
        assert await link.ask([("PING",)]) == [1]
        assert server.connections == 2
        await link.aclose()


async def test_a_connection_that_is_reset_costs_another_try():
    """A server that dies resets its connections; the call is asked again."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(PING))
        no_farewell = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_farewell)

    async with serving(reset, count) as server:
        link = server.link()
        assert await link.ask([("PING",)]) == [1]
        assert server.connections == 2
        await link.aclose()


async def test_answers_in_pieces_and_heaps():
    """However the server's bytes come in, answers are whole, text is text, and errors inside a list stay there."""

    async def in_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2 * len(PING))
        for byte in b"$6\r\nna\xc3\xafve\r\n*3\r\n:1\r\n$1\r\n\xff\r\n-NOSCRIPT none\r\n":
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        await reader.read()

    async with serving(in_pieces) as server:
        link = server.link()
        text, (number, odd, error) = await link.ask([("PING",)] * 2)
        assert (text, number, odd) == ("naïve", 1, "\ufffd")
        assert isinstance(error, NoScriptError)
        await link.aclose()


async def test_a_connection_that_ends_before_the_write_costs_another_try(monkeypatch):
    """uvloop has an error of its own for it, which is none of redis-py's; nobody waits for it until the timeout."""
    send = Connection.send_packed_command
    due = [RuntimeError("unable to perform operation; the handler is closed")]

    async def once_too_late(connection: Connection, packed: bytes, *, check_health: bool) -> None:
        if due:
            raise due.pop()
        await send(connection, packed, check_health=check_health)

    monkeypatch.setattr(Connection, "send_packed_command", once_too_late)
    async with serving(count) as server:
        link = server.link()
        assert await link.ask([("PING",)]) == [1]
        assert server.connections == 2
        await link.aclose()


async def test_a_link_that_was_closed_stays_closed():
    """Calls under way fail instead of being asked again over a new connection; so do later ones."""
    async with serving(ignore) as server:
        link = server.link()
        call = asyncio.create_task(link.ask([("PING",)]))
        while not server.connections:
            await asyncio.sleep(0)
        await link.aclose()
        with pytest.raises(RedisConnectionError, match="closed"):
            await call
        with pytest.raises(RedisConnectionError, match="closed"):
            await link.ask([("PING",)])
        assert server.connections == 1


async def test_a_link_may_be_closed_while_it_connects(monkeypatch):
    """The connection that is being made is closed with it."""
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

    async with serving(note_the_end) as server:
        link = server.link()
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


async def test_nobody_listens(free_port):
    """A refused connection is an error at once; closing what was never open is nothing."""
    server = Server(count)
    server.port = free_port
    link = server.link()
    with pytest.raises(RedisConnectionError):
        await link.ask([("PING",)])
    await link.aclose()
