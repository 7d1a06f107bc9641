"""`recsys.client` against a real pipeline, and against other servers."""

import asyncio
import contextlib
import io
import json
import subprocess
import sys

import httpx
import msgspec
import pytest

from chassis.wire import cloudevents
from functions.extract_features.user_updates import read_update
from localkn.processes import free_port
from recsys.client import (
    AsyncClient,
    Client,
    NoAnswerError,
    OtherServerError,
    ProblemError,
    RecommendRequest,
    SessionItem,
)
from recsys.declaration.types import Attribute
from tests.documentation.pages import ROOT, block

pytestmark = pytest.mark.may_block

GUIDE = ROOT / "docs/how-to/call-from-python.md"
ABSENT = "http://127.0.0.1:9"


def answering(status: int, body: object, **headers: str) -> httpx.MockTransport:
    return httpx.MockTransport(lambda _: httpx.Response(status, json=body, headers=headers))


def both(url: str, **options):
    """Yield a function for each client, which calls one of its methods."""

    def blocking(method: str, *words, **keywords):
        with Client(url, **options) as client:
            return getattr(client, method)(*words, **keywords)

    def waiting(method: str, *words, **keywords):
        async def call():
            async with AsyncClient(url, **options) as client:
                return await getattr(client, method)(*words, **keywords)

        return asyncio.run(call())

    return [blocking, waiting]


def test_both_clients_return_the_answer_of_the_pipeline(pipeline):
    """The typed answer has the items and scores of the HTTP answer, with the options of the call."""
    sent = {"user_id": "user_42", "top_k": 3, "exclude": ["item_1"]}
    expected = pipeline.recommend.post(sent).json()["recommendations"]
    for call in both(pipeline.recommend.url):
        answer = call("recommend", "user_42", top_k=3, exclude=["item_1"], strict=True, timeout_s=5)
        assert [{"item_id": item.item_id, "score": item.score} for item in answer.recommendations] == expected
        assert (answer.user_id, answer.degraded) == ("user_42", ())


def test_both_clients_ask_for_sessions_similar_items_and_further_fields(pipeline):
    """No user is needed with a session or an item; the further fields are those of the HTTP answer."""
    session = [{"item_id": "item_7", "time": "2026-01-01T00:00:00Z"}]
    for sent, given in (
        ({"history": session}, {"history": [SessionItem("item_7", "2026-01-01T00:00:00Z")]}),
        ({"item_id": "item_7"}, {"item_id": "item_7"}),
    ):
        expected = pipeline.recommend.post({**sent, "top_k": 2, "include": ["title", "reason"]}).json()
        for call in both(pipeline.recommend.url):
            answer = call("recommend", top_k=2, include=["title", "reason"], **given)
            assert json.loads(msgspec.json.encode(answer))["recommendations"] == expected["recommendations"]
            assert all(item.title and item.reason for item in answer.recommendations)


def test_a_batch_of_any_length_has_an_answer_or_a_problem_for_each_request(pipeline):
    """300 requests are more than a call takes; a request that is at fault gets its problem in its place."""
    requests = [RecommendRequest(f"user_{number}", top_k=1) for number in range(300)]
    requests[270] = RecommendRequest("user_270", top_k=500)
    for call in both(pipeline.recommend.url):
        answers = call("recommend_many", requests, timeout_s=9)
        assert [getattr(each, "user_id", None) for each in answers[:270]] == [each.user_id for each in requests[:270]]
        assert isinstance(answers[270], ProblemError)
        assert answers[270].faults[0].path == "$.top_k"
        assert len(answers) == 300


def test_a_problem_is_an_exception_with_its_fields(pipeline):
    """The exception has status, code, faults and request id, and says whether a retry may succeed."""
    for call in both(pipeline.recommend.url):
        with pytest.raises(ProblemError, match=r"422 invalid-request: \$.top_k must be at most 100") as caught:
            call("recommend", "user_42", top_k=500)
        problem = caught.value
        assert (problem.status, problem.code, problem.retryable, problem.detail) == (
            422,
            "invalid-request",
            False,
            None,
        )
        assert [fault.path for fault in problem.faults] == ["$.top_k"]
        assert problem.request_id
    body = {"status": 503, "code": "overloaded", "title": "Too much is waiting already"}
    with (
        pytest.raises(ProblemError) as caught,
        Client(ABSENT, transport=answering(503, body, **{"retry-after": "2"})) as client,
    ):
        client.recommend("u")
    assert (caught.value.retryable, caught.value.retry_after_s) == (True, 2.0)


def test_a_pipeline_that_is_not_there_or_not_one_is_explained():
    """No connection and a foreign answer are two errors, and both name the URL."""
    url = f"http://127.0.0.1:{free_port()}"
    for call in both(url):
        with pytest.raises(NoAnswerError, match=url):
            call("recommend", "u")
    for answer in (
        httpx.Response(200, text="<html>"),
        httpx.Response(404, text="nothing"),
        httpx.Response(200, json=[]),
    ):
        client = Client(ABSENT, transport=httpx.MockTransport(lambda _, answer=answer: answer))
        with client, pytest.raises(OtherServerError, match="does not come from a pipeline; check the URL"):
            client.recommend("u")


def test_the_deadline_goes_with_the_request_and_ends_the_call():
    """The pipeline gets the time budget in milliseconds, and a server that never answers ends in NoAnswerError."""
    seen = []

    def refuse(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        raise httpx.ReadTimeout("", request=request)

    client = Client(ABSENT, token="secret", transport=httpx.MockTransport(refuse))
    with client, pytest.raises(NoAnswerError, match="no complete answer within 0.25 s"):
        client.recommend("u", timeout_s=0.25)
    assert (seen[0]["x-request-timeout-ms"], seen[0]["authorization"]) == ("250", "Bearer secret")

    async def never(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def call() -> None:
        async with AsyncClient(ABSENT, transport=httpx.MockTransport(never)) as waiting:
            await waiting.recommend("u", timeout_s=0.01)

    with pytest.raises(NoAnswerError, match="no complete answer"):
        asyncio.run(call())


def test_interactions_are_events_for_the_broker():
    """An interaction becomes an event that extract_features accepts, at the URL of the broker."""
    seen = []

    def accept(request: httpx.Request) -> httpx.Response:
        seen.append((str(request.url), cloudevents.read_events(request.headers.raw, request.content)[0]))
        return httpx.Response(202)

    for call in both(ABSENT, events_url="http://broker/ns/default", transport=httpx.MockTransport(accept)):
        call("send_interaction", "üser", "purchase", "i", event_id="order-1")
    for url, event in seen:
        assert (url, event.id, event.type) == ("http://broker/ns/default", "order-1", "dev.recsys.interaction.v1")
        assert json.loads(event.data) == {"user_id": "üser", "kind": "purchase", "item_id": "i"}
    assert len(seen) == 2
    with Client(ABSENT) as client, pytest.raises(ValueError, match="no events_url"):
        client.send_interaction("u", "view", "i")


def test_updates_of_users_are_events_for_the_broker():
    """New values of attributes become an event that extract_features accepts."""
    seen = []

    def accept(request: httpx.Request) -> httpx.Response:
        seen.append(cloudevents.read_events(request.headers.raw, request.content)[0])
        return httpx.Response(202)

    for call in both(ABSENT, events_url="http://broker/ns/default", transport=httpx.MockTransport(accept)):
        call("update_user", "ann", {"city": ["Bern"], "sizes": ()})
    attributes = {"city": Attribute("categorical"), "sizes": Attribute("multi-valued")}
    told = [read_update(event, attributes=attributes) for event in seen]
    assert [(each.user_id, each.values) for each in told] == [("ann", {"city": ("Bern",), "sizes": ()})] * 2


def test_a_context_is_sent_if_there_is_one():
    """A pipeline of an earlier version takes calls without a context."""
    seen = []

    def accept(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content).get("context"))
        return httpx.Response(200, json={"user_id": "u", "recommendations": []})

    for call in both(ABSENT, transport=httpx.MockTransport(accept)):
        call("recommend", "u", context={"device": "phone", "hour": 14})
        call("recommend", "u")
    assert seen == [{"device": "phone", "hour": 14}, None] * 2


def test_the_client_imports_nothing_heavy():
    """Importing the client loads neither numpy nor the parts of the functions."""
    program = "import sys, recsys.client; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    heavy = {"numpy", "scipy", "functions_framework", "starlette", "uvicorn", "redis", "prometheus_client"}
    assert not heavy & set(loaded.split())


def test_the_programs_of_the_guide_run(pipeline):
    """Each program of the guide does what the page says."""

    def run(title: str) -> str:
        code = block(GUIDE, title).replace("http://127.0.0.1:8080", pipeline.recommend.url)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, title, "exec"), {})
        return printed.getvalue()

    assert len(run("ask.py").splitlines()) == 3
    assert run("errors.py") == block(GUIDE, "printed")
    assert len(run("batch.py").splitlines()) == 300
    # No broker listens at the address of a cluster.
    with pytest.raises(NoAnswerError, match="broker-ingress"):
        run("events.py")
