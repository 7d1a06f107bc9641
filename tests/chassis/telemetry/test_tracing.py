"""One trace through all hops, for requests and events."""

import asyncio
import json
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import uvicorn
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette

from chassis import telemetry
from chassis.batching.batcher import Batcher
from chassis.batching.queue import BatchLimits
from chassis.call import Handler
from chassis.environment import Reader, SettingsError
from chassis.hop.client import HopClient
from chassis.server.asgi import Shell
from chassis.server.service import Service, make_tracer
from chassis.server.settings import ServingSettings
from chassis.telemetry.otel import OtelTracer
from chassis.telemetry.tracing import NoTracer, PassOn, is_sampled, read_parent, unsampled_context
from chassis.wire.cloudevents import read_events
from chassis.wire.transport import HttptoolsTransport
from functions.extract_features.handler import ExtractFeatures
from functions.rank_items.handler import RankItems
from functions.recommend.handler import Recommend
from functions.recommend.hops import FeaturesClient, RankingClient
from functions.recommend.popular import PopularList
from functions.recommend.recommender import Recommender
from functions.recommend.settings import PopularSettings
from recrank import model
from recrank.filters import ItemAttributes
from recrank.model import Query
from recstore.memory import MemoryStore
from recsys.contracts.wire import Model
from recsys.declaration.reader import default_declaration
from recsys.features import UNKNOWN_FEATURES
from tests.waiting import LIMIT_S, until


@pytest.fixture(autouse=True)
def _declaration() -> None:
    """Read the declaration before the loop runs, as an instance does."""
    default_declaration()


CALLER = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
UNSAMPLED = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")


class TracedPipeline:
    """Three services on real ports in one process, with one exporter."""

    def __init__(self, ratio: float) -> None:
        self.exporter = InMemorySpanExporter()
        self._ratio = ratio
        self.port = 0
        self.batcher: Batcher[Query, model.Ranking]
        # While the gate is closed batches wait, so that later requests share the next batch.
        self.gate = threading.Event()
        self.gate.set()
        self.batches = 0

    def service(self, name: str, handler: Handler) -> Service:
        # On a busy machine a request may take longer than the default budget of 1 s, and the answer would be degraded.
        env = {"AUTH": "off", "METRICS_PORT": "0", "REQUEST_TIMEOUT_S": "10"}
        settings = ServingSettings.read(Reader(env), name=name, max_body_bytes=10_000)

        @asynccontextmanager
        async def open_handler() -> AsyncIterator[Handler]:
            yield handler

        tracer = OtelTracer(
            self.exporter, ratio=self._ratio, resource={"service.name": name}, processor=SimpleSpanProcessor
        )
        return Service(name, open_handler, settings=settings, tracer=tracer)

    @asynccontextmanager
    async def listening(self, name: str, handler: Handler) -> AsyncIterator[int]:
        service = self.service(name, handler)
        shell = Shell(Starlette(), service, on_failed_start=lambda: None)
        server = uvicorn.Server(uvicorn.Config(shell, port=0, lifespan="on", log_level="warning", ws="none"))
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        try:
            yield server.servers[0].sockets[0].getsockname()[1]
        finally:
            # Without this, a test that fails leaves connections in which uvloop may wait forever when it closes.
            server.should_exit = True
            await serving

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator["TracedPipeline"]:
        def rank(queries: Sequence[Query]) -> list[model.Ranking]:
            self.batches += 1
            self.gate.wait(LIMIT_S)
            return [model.Ranking(["a"], [1.0]) for _ in queries]

        extract = ExtractFeatures(MemoryStore(), population=UNKNOWN_FEATURES, history_limit=5)
        async with AsyncExitStack() as parts:
            executor = parts.enter_context(ThreadPoolExecutor(1))
            # The batcher takes batches for long ones: it runs them in a thread, and further requests queue.
            self.batcher = Batcher(rank, limits=BatchLimits(), executor=executor)
            self.batcher._costs.note(1, 1.0)
            handler = RankItems(self.batcher, model=Model("m", "1"), attributes=lambda: ItemAttributes([]))
            features_port = await parts.enter_async_context(self.listening("extract-features", extract))
            ranking_port = await parts.enter_async_context(self.listening("rank-items", handler))
            transport = HttptoolsTransport()
            parts.push_async_callback(transport.aclose)
            ranking = RankingClient(HopClient("rank_items", f"http://127.0.0.1:{ranking_port}/", transport=transport))
            hop = HopClient("extract_features", f"http://127.0.0.1:{features_port}/", transport=transport)
            popular = PopularList(ranking, PopularSettings(None, 60))
            recommender = Recommender(features=FeaturesClient(hop), ranking=ranking, popular=popular)
            async with self.listening("recommend", Recommend(recommender)) as self.port:
                yield self

    async def post(self, body: bytes, *headers: tuple[bytes, bytes]) -> tuple[dict[bytes, bytes], bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b" % (lines, len(body), body))
        head = await reader.readuntil(b"\r\n\r\n")
        found = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        answer = await reader.readexactly(int(found[b"content-length"]))
        writer.close()
        return found, answer

    def tree(self) -> dict[str, str | None]:
        """Return each span as service/name with its parent: "root" without a parent, None for a parent outside."""
        spans = self.exporter.get_finished_spans()
        names = {span.context.span_id: f"{span.resource.attributes['service.name']!s}/{span.name}" for span in spans}
        assert len({span.context.trace_id for span in spans}) <= 1
        return {
            names[span.context.span_id]: names.get(span.parent.span_id) if span.parent else "root" for span in spans
        }


TREE = {
    "recommend/extract_features": "recommend/recommend",
    "extract-features/extract-features": "recommend/extract_features",
    "extract-features/store": "extract-features/extract-features",
    "recommend/rank_items": "recommend/recommend",
    "rank-items/rank-items": "recommend/rank_items",
    "rank-items/wait": "rank-items/rank-items",
    "rank-items/model": "rank-items/rank-items",
}


async def test_a_request_is_one_trace():
    """Every span, from the caller through recommend to both functions and their work, has the right parent."""
    async with TracedPipeline(0.0).pipeline() as traced:
        await traced.post(b'{"user_id":"zoe"}', CALLER)
        assert traced.tree() == {"recommend/recommend": None, **TREE}
        spans = {span.name: span for span in traced.exporter.get_finished_spans()}
        assert format(spans["recommend"].context.trace_id, "032x") == "0af7651916cd43dd8448eb211c80319c"
        assert spans["model"].attributes == {"batch.size": 1, "batch.cut": "slot_free"}
        assert spans["recommend"].attributes == {"http.response.status_code": 200}


async def test_a_shared_batch_is_in_the_trace_of_each_request():
    """Each request of a batch has a span for the batch in its own trace, beside its own wait."""
    async with TracedPipeline(1.0).pipeline() as traced:
        traced.gate.clear()
        asked = [asyncio.create_task(traced.post(b'{"user_id":"a"}'))]
        await until(lambda: traced.batches == 1)
        asked += [asyncio.create_task(traced.post(b'{"user_id":"%d"}' % number)) for number in range(2)]
        await until(lambda: traced.batcher.waiting == 2)
        traced.gate.set()
        await asyncio.gather(*asked)
        spans = traced.exporter.get_finished_spans()
    by_id = {span.context.span_id: span for span in spans}
    models = [span for span in spans if span.name == "model"]
    assert Counter((span.attributes or {})["batch.size"] for span in models) == {1: 1, 2: 2}
    assert len({span.context.trace_id for span in models}) == 3
    for span in models:
        ancestors = [span]
        while ancestors[-1].parent:
            ancestors.append(by_id[ancestors[-1].parent.span_id])
        assert [each.name for each in ancestors] == ["model", "rank-items", "rank_items", "recommend"]
        assert {each.context.trace_id for each in ancestors} == {span.context.trace_id}


async def test_a_request_without_a_context_starts_a_trace():
    """recommend is the root of the trace when the caller sends no context."""
    async with TracedPipeline(1.0).pipeline() as traced:
        await traced.post(b'{"user_id":"zoe"}')
        assert traced.tree() == {"recommend/recommend": "root", **TREE}


async def test_an_event_continues_its_trace():
    """The event's traceparent is the parent, and the reply's traceparent names recommend's span."""
    event = [
        (b"ce-id", b"1"),
        (b"ce-source", b"/s"),
        (b"ce-specversion", b"1.0"),
        (b"ce-type", b"dev.recsys.recommendation.requested.v1"),
        (b"ce-traceparent", CALLER[1]),
    ]
    async with TracedPipeline(0.0).pipeline() as traced:
        headers, body = await traced.post(b'{"user_id":"zoe"}', *event)
        assert traced.tree() == {"recommend/recommend": None, **TREE}
        (reply,) = read_events(list(headers.items()), body)
        spans = {span.name: span for span in traced.exporter.get_finished_spans()}
        ids = spans["recommend"].context
        assert reply.extensions["traceparent"] == f"00-{ids.trace_id:032x}-{ids.span_id:016x}-01"


async def test_unsampled_traces_are_not_recorded():
    """No service records a trace whose first service did not sample it."""
    async with TracedPipeline(0.0).pipeline() as traced:
        await traced.post(b'{"user_id":"zoe"}', UNSAMPLED)
        await traced.post(b'{"user_id":"zoe"}')
        assert traced.tree() == {}


async def test_failures_are_recorded_in_the_span():
    """The span of a refused request carries the response status."""
    async with TracedPipeline(1.0).pipeline() as traced:
        _, body = await traced.post(b"{}")
        assert json.loads(body)["status"] == 422
        (span,) = traced.exporter.get_finished_spans()
        assert span.attributes == {"http.response.status_code": 422}


@pytest.mark.parametrize(
    "value",
    [b"", b"00-0-0-01", b"01" + CALLER[1][2:], b"00-" + b"0" * 32 + CALLER[1][35:], CALLER[1].upper(), b"\xff"],
)
def test_an_invalid_context_is_ignored(value):
    """A malformed or all-zero context is not a parent."""
    assert read_parent([(b"traceparent", value)]) is None


def test_the_parent_decides_about_sampling():
    """The sampling flag of the parent decides; without a parent the ratio does."""
    assert is_sampled(None, ratio=0.5, draw=lambda: 0.4)
    assert not is_sampled(None, ratio=0.5, draw=lambda: 0.6)
    assert is_sampled(read_parent([CALLER]), ratio=0.0)
    assert not is_sampled(read_parent([UNSAMPLED]), ratio=1.0)


def test_the_context_is_passed_on_without_tracing():
    """The caller's context is passed on unchanged without tracing; an unsampled request gets an unsampled context."""
    headers = [CALLER, (b"cookie", b"x"), (b"tracestate", b"a=b")]
    span = NoTracer().begin("x", headers)
    assert span.context() == [CALLER, (b"tracestate", b"a=b")]
    assert span.child("y") is span
    assert span.trace_id is None
    assert unsampled_context(headers) == headers
    parent = read_parent(unsampled_context([]))
    assert parent is not None
    assert not parent.sampled
    assert PassOn(()).context() == []


def test_tracing_is_enabled_by_its_endpoint(monkeypatch):
    """An endpoint enables tracing; an endpoint without the packages is a settings error."""
    env = {"AUTH": "off", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318/"}
    settings = ServingSettings.read(Reader(env), name="x", max_body_bytes=1)
    tracer = make_tracer(settings, "x")
    assert isinstance(tracer, OtelTracer)
    tracer.close()
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "chassis.telemetry.otel")
    monkeypatch.delattr(telemetry, "otel")
    with pytest.raises(SettingsError, match="opentelemetry"):
        make_tracer(settings, "x")
