"""The dead-letter sink as the process that its Service runs, and the verb that reads it."""

import json
import os
import signal
import socket
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest
from redis import Redis

from localkn.processes import free_port
from recstore.erasures import digest_user
from recstore.redis_keys import erasure_key
from tests.http_server import HttpHandler, HttpServer
from tests.knative.objects import KNATIVE, container, overlay, services
from tests.running import CLIENT, killed_at_the_end
from tests.waiting import LIMIT_S, eventually
from tools.bench.redis_server import RedisServer
from tools.cli.verbs import main as run_verb

pytestmark = pytest.mark.may_block

PROGRAM = KNATIVE / "components/eventing/dead_letters.py"
UNKNOWN = f"{7:019d}-{7:06d}"
LETTER = {"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t", "ce-source": "/s", "ce-knativeerrorcode": "422",
          "content-type": "application/json"}  # fmt: skip


@contextmanager
def running(**environment: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Yield the URL and the process of a sink, which must end with status 0 at SIGTERM."""
    port = free_port()
    started = subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        env={**os.environ, "PORT": str(port), **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    url = f"http://127.0.0.1:{port}"
    with killed_at_the_end(started) as process:
        eventually(lambda: _answers(url))
        yield url, process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT_S) == 0


@pytest.fixture(scope="module")
def sink() -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Start a sink that keeps no letters; each test reads the lines of its events."""
    with running() as started:
        yield started


def _answers(url: str) -> bool:
    try:
        return CLIENT.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def line(process: "subprocess.Popen[str]") -> dict[str, object]:
    assert process.stdout
    return json.loads(process.stdout.readline())  # type: ignore[no-any-return]


def test_an_event_becomes_a_line(sink):
    """The line holds the attributes, the failure and the data; the answer is an empty 202."""
    url, process = sink
    answer = CLIENT.post(url, json={"user_id": "u"}, headers=LETTER)
    assert (answer.status_code, answer.content) == (202, b"")
    assert line(process) == {
        "event": "dead_letter",
        "attributes": {"specversion": "1.0", "id": "1", "type": "t", "source": "/s", "knativeerrorcode": "422",
                       "datacontenttype": "application/json"},
        "data": {"user_id": "u"},
    }  # fmt: skip


def test_data_that_is_not_json_is_kept(sink):
    """Data that is not JSON is kept in base64, with and without chunks, and missing data becomes null."""
    url, process = sink
    CLIENT.post(url, content=b"\xff", headers=LETTER)
    assert line(process)["data_base64"] == "/w=="
    CLIENT.post(url, content=iter([b'{"a":', b"1}"]), headers=LETTER)
    assert line(process)["data"] == {"a": 1}
    CLIENT.post(url, headers=LETTER)
    assert line(process)["data"] is None


@pytest.mark.parametrize("framing", ["Content-Length: 2000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nffffff\r\n"])
def test_an_oversized_event_is_refused(sink, framing):
    """The sink answers 413 as soon as the length is known."""
    url, _ = sink
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(f"POST / HTTP/1.1\r\nHost: x\r\n{framing}".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "framing",
    ["Content-Length: -1\r\n\r\n", "Content-Length: 1_0\r\n\r\n", "Content-Length: x\r\n\r\n",
     "Transfer-Encoding: chunked\r\n\r\n-5\r\n", "Transfer-Encoding: chunked\r\n\r\nxyz\r\n"],
)  # fmt: skip
def test_a_length_that_is_no_number_is_refused(sink, framing):
    """The sink answers 400 and closes the connection; it does not read until the sender closes."""
    url, _ = sink
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=LIMIT_S) as connection:
        connection.sendall(f"POST / HTTP/1.1\r\nHost: x\r\n{framing}".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("levels", [150, 900, 5_000])
def test_deep_data_are_kept_as_bytes(sink, levels):
    """The functions refuse deep JSON, so it becomes a dead letter like any other data."""
    url, process = sink
    body = b"[" * levels + b"]" * levels
    assert CLIENT.post(url, content=body, headers=LETTER).status_code == 202
    assert b64decode(str(line(process)["data_base64"])) == body


def test_without_redis_there_is_no_list(sink):
    """A sink that keeps no letters has no list of them."""
    url, _ = sink
    assert CLIENT.get(f"{url}/letters").status_code == 404
    assert CLIENT.delete(f"{url}/letters/{UNKNOWN}").status_code == 404


def ids(url: str) -> list[str]:
    found = CLIENT.get(f"{url}/letters")
    assert found.status_code == 200, found.text
    return [each["letter"]["attributes"]["id"] for each in found.json()["letters"]]


def test_letters_survive_the_sink(redis_server: RedisServer):
    """A letter is kept when its sink is killed, is listed by the next one, and goes when it is removed."""
    redis_server.flush()
    with running(DEAD_LETTERS_URL=redis_server.url) as (url, process):
        for number in range(150):
            assert CLIENT.post(url, json={"n": number}, headers={**LETTER, "ce-id": str(number)}).status_code == 202
        process.kill()
        process.wait()
        with running(DEAD_LETTERS_URL=redis_server.url) as (other, _):
            first = CLIENT.get(f"{other}/letters").json()["letters"]
            after = first[-1]["id"]
            rest = CLIENT.get(f"{other}/letters", params={"after": after}).json()["letters"]
            listed = [each["letter"]["attributes"]["id"] for each in [*first, *rest]]
            assert listed == [str(number) for number in range(150)]
            assert first[3]["letter"]["data"] == {"n": 3}
            for expected in (True, False):
                assert CLIENT.delete(f"{other}/letters/{first[0]['id']}").json() == {"removed": expected}
            assert ids(other)[0] == "1"
            for wrong in ("x", "1-1", "%28"):
                assert CLIENT.delete(f"{other}/letters/{wrong}").status_code == 404
                assert CLIENT.get(f"{other}/letters", params={"after": wrong}).status_code == 400


def test_what_others_wrote_to_the_key_is_left_out(redis_server: RedisServer):
    """Members of the set that are no letters neither hide the letters nor keep an erasure from them."""
    redis_server.flush()
    with Redis.from_url(redis_server.url) as redis, running(DEAD_LETTERS_URL=redis_server.url) as (url, _):
        CLIENT.post(url, json={"user_id": "ann"}, headers=LETTER)
        CLIENT.post(url, json={"user_id": "bob"}, headers={**LETTER, "ce-id": "2"})
        foreign = ["", "x", f"{UNKNOWN} {{", f"{UNKNOWN} []", *(f"0{number} [" for number in range(150))]
        redis.zadd("recsys-letters", dict.fromkeys(foreign, 0))
        assert ids(url) == ["1", "2"]
        redis.hset(erasure_key(digest_user("ann")), mapping={"at_us": 1, "readmitted": 0})
        assert CLIENT.post(f"{url}/erased", json={"user_id": "ann"}, headers=LETTER).status_code == 202
        assert ids(url) == ["2"]


def test_a_letter_that_cannot_be_kept_is_refused(free_port: int):
    """Without its Redis the sink answers 503, so that the broker delivers again, and the log has the letter."""
    with running(DEAD_LETTERS_URL=f"redis://127.0.0.1:{free_port}/0") as (url, process):
        assert CLIENT.post(url, json={"user_id": "u"}, headers=LETTER).status_code == 503
        assert line(process)["data"] == {"user_id": "u"}
        answer = CLIENT.get(f"{url}/letters")
        assert (answer.status_code, "Redis: " in answer.json()["detail"]) == (503, True)


def test_the_log_of_kept_letters_names_no_user(redis_server: RedisServer):
    """The log has the type, the source and the id of the event, and the failure; the letter has the rest."""
    redis_server.flush()
    with running(DEAD_LETTERS_URL=redis_server.url) as (url, process):
        CLIENT.post(url, json={"user_id": "ann-of-the-hill"}, headers={**LETTER, "ce-subject": "ann-of-the-hill"})
        assert line(process) == {
            "event": "dead_letter", "type": "t", "source": "/s", "id": "1", "knativeerrorcode": "422"
        }  # fmt: skip


def test_nothing_is_kept_of_an_erased_user(redis_server: RedisServer):
    """A letter about a user who is erased is dropped, and the event of the erasure removes the earlier letters."""
    redis_server.flush()
    ann, erasure = {"user_id": "ann-of-the-hill"}, erasure_key(digest_user("ann-of-the-hill"))
    with Redis.from_url(redis_server.url) as redis, running(DEAD_LETTERS_URL=redis_server.url) as (url, process):
        CLIENT.post(url, json=ann, headers=LETTER)
        CLIENT.post(url, json={"user_id": "bob"}, headers={**LETTER, "ce-id": "2", "ce-subject": "ann-of-the-hill"})
        CLIENT.post(url, json={"user_id": "bob"}, headers={**LETTER, "ce-id": "3"})
        # The feature store has not erased the user yet: the broker delivers this event again.
        assert CLIENT.post(f"{url}/erased", json=ann, headers=LETTER).status_code == 503
        assert ids(url) == ["1", "2", "3"]
        redis.hset(erasure, mapping={"at_us": 1, "readmitted": 0})
        assert CLIENT.post(f"{url}/erased", json=ann, headers=LETTER).status_code == 202
        assert ids(url) == ["3"]
        assert CLIENT.post(url, json=ann, headers={**LETTER, "ce-id": "4"}).status_code == 202
        assert ids(url) == ["3"]
        redis.config_set("rdbcompression", "no")
        redis.save()
        assert b"ann-of-the-hill" not in (redis_server.folder / "dump.rdb").read_bytes()
        redis.hset(erasure, mapping={"at_us": 2, "readmitted": 1})
        CLIENT.post(url, json=ann, headers={**LETTER, "ce-id": "5"})
        assert CLIENT.post(f"{url}/erased", json=ann, headers=LETTER).status_code == 202
        assert ids(url) == ["3", "5"]
        assert [line(process)["id"] for _ in range(4)] == ["1", "2", "3", "5"]


@pytest.mark.parametrize(
    "data",
    [
        {"answers": [{"user_id": "bob"}, {"user_id": "ann"}]},
        {"user_id": ["bob", "ann"]},
        {"parts": [{"user_id": ["bob"]}, {"user_id": ["eve", "ann"]}]},
    ],
)
def test_a_letter_about_several_users_goes_with_each(redis_server: RedisServer, data: object):
    """An event about a group of answers names its users in lists; the erasure of one removes its letter."""
    redis_server.flush()
    with Redis.from_url(redis_server.url) as redis, running(DEAD_LETTERS_URL=redis_server.url) as (url, _):
        CLIENT.post(url, json=data, headers=LETTER)
        for user, left in (("eva", ["1"]), ("ann", [])):
            redis.hset(erasure_key(digest_user(user)), mapping={"at_us": 1, "readmitted": 0})
            assert CLIENT.post(f"{url}/erased", json={"user_id": user}, headers=LETTER).status_code == 202
            assert ids(url) == left


@pytest.mark.parametrize(
    "subject", ["Zoë 😀".encode(), b"Zo%C3%AB%20%F0%9F%98%80"], ids=["as Knative", "as the standard"]
)
def test_attributes_beyond_ascii_are_kept(redis_server: RedisServer, broker: "Broker", subject: bytes):
    """A letter with such attributes is sent again with them, and is known as one about the user that they name."""
    redis_server.flush()
    with Redis.from_url(redis_server.url) as redis, running(DEAD_LETTERS_URL=redis_server.url) as (url, _):
        headers = [*((name.encode(), value.encode()) for name, value in LETTER.items()), (b"ce-subject", subject)]
        CLIENT.post(url, content=b"{", headers=headers)
        where = ["--namespace", "recsys", "--gateway", url, "--broker", broker.url]
        assert run_verb(["dead-letters", "redrive", *where, "--all"]) == 0
        assert [unquote(sent["ce-subject"]) for _, sent, _ in broker.events] == ["Zoë 😀"]
        redis.hset(erasure_key(digest_user("Zoë 😀")), mapping={"at_us": 1, "readmitted": 0})
        CLIENT.post(url, content=b"{", headers=headers)
        assert ids(url) == []


class Broker(HttpServer):
    """A Broker that refuses the event `refused`."""

    def __init__(self) -> None:
        super().__init__(_Accepting)
        self.events: list[tuple[str, dict[str, str], bytes]] = []


class _Accepting(HttpHandler):
    server: Broker

    def post(self) -> None:
        headers = {name.lower(): text for name, text in self.headers.items()}
        self.server.events.append((self.path, headers, self.body()))
        self.answer(400 if self.headers["ce-id"] == "refused" else 202)


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as server:
        yield server


def test_dead_letters_are_listed_and_sent_again(redis_server: RedisServer, broker: Broker, capsys):
    """The verb lists letters, sends those that it is told, and removes those that the Broker accepts."""
    redis_server.flush()
    with running(DEAD_LETTERS_URL=redis_server.url) as (url, _):
        structured = {"specversion": "1.0", "id": "s", "type": "t", "source": "/s", "data": {"n": 1}}
        CLIENT.post(url, json=structured, headers={"content-type": "application/cloudevents+json"})
        CLIENT.post(url, content=b"\xff", headers={**LETTER, "ce-id": "binary", "content-type": "text/plain"})
        CLIENT.post(url, json={}, headers={**LETTER, "ce-id": "refused"})
        where = ["--namespace", "recsys", "--gateway", url]
        assert run_verb(["dead-letters", *where]) == 0
        said = capsys.readouterr().out.splitlines()
        assert said[-1] == "dead letters: 3"
        assert said[1].endswith("t /s binary  422 from ?")
        again = ["dead-letters", "redrive", *where, "--broker", broker.url]
        assert run_verb([*again, said[0].split()[0]]) == 0
        assert run_verb([*again, "--all"]) == 1
        output = capsys.readouterr()
        assert "1 of 2 dead letters accepted" in output.out
        assert "the Broker answers 400" in output.err
        assert ids(url) == ["refused"]
        assert run_verb([*again, UNKNOWN]) == 1
        assert f"{UNKNOWN}: no such dead letter" in capsys.readouterr().err
    (path, first, body), (_, second, raw), _ = broker.events
    assert path == "/recsys/default"
    assert (first["content-type"], json.loads(body)) == ("application/cloudevents+json", structured)
    assert (second["ce-id"], second["content-type"], raw) == ("binary", "text/plain", b"\xff")
    assert "ce-knativeerrorcode" not in second


@pytest.mark.parametrize(
    "words",
    [[UNKNOWN], ["--all"], ["redrive"], ["redrive", "--all"], ["redrive", UNKNOWN, "--all", "--broker", "http://b"]],
    ids=" ".join,
)
def test_redrive_wants_letters_and_a_broker(words):
    """Arguments that do not fit together are wrong arguments."""
    assert run_verb(["dead-letters", *words, "--gateway", "http://127.0.0.1:9"]) == 2


def test_a_gateway_that_does_not_answer_is_an_error(free_port: int, capsys):
    """The verb names the gateway and the usual reason."""
    assert run_verb(["dead-letters", "--gateway", f"http://127.0.0.1:{free_port}"]) == 1
    assert "is the port-forward open?" in capsys.readouterr().err


def test_the_reason_of_the_sink_is_shown(free_port: int, capsys):
    """The sink says why it has no list, and a gateway without the sink answers in its own words."""
    with running(DEAD_LETTERS_URL=f"redis://127.0.0.1:{free_port}/0") as (url, _):
        assert run_verb(["dead-letters", "--namespace", "shop", "--gateway", url]) == 1
    assert capsys.readouterr().err.startswith("dead-letters.shop.svc.cluster.local answers 503: Redis: ")
    with running() as (url, _):
        assert run_verb(["dead-letters", "--gateway", url]) == 1
    assert "answers 404: Not Found" in capsys.readouterr().err


def test_the_service_runs_this_program():
    """The Service has the command that runs the mounted file, and the ConfigMap contains the file."""
    service = services(overlay("dev"))["dead-letters"]
    found = container(service)
    (mounted,) = found["volumeMounts"]
    assert [*found["command"], *found["args"]] == ["python", f"{mounted['mountPath']}/{PROGRAM.name}"]
    (content,) = [
        b for b in overlay("dev") if b["metadata"]["name"].startswith("dead-letters-") and b["kind"] == "ConfigMap"
    ]
    assert content["data"] == {PROGRAM.name: Path(PROGRAM).read_text()}
