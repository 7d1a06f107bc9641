"""
The HTTP server of the dashboard: the page, its data, and `/metrics`.

Another site can make a browser on this machine send requests. Two rules stop it from using them. The server answers only
to loopback names, against DNS rebinding. It accepts a request to try only from its own page, against forged requests.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import httpx
import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from chassis.server.body import read_body
from chassis.server.refusals import LOOPBACK, REFUSALS, HostGuard, problem_response
from chassis.wire.decoder import Decoder
from chassis.wire.problems import DependencyError, ForbiddenError, InvalidRequestError
from kndashboard.changes import changes
from kndashboard.exposition import expose
from kndashboard.history import SnapshotHistory
from kndashboard.logs import RecentLogs
from kndashboard.queries import PlatformQueries
from kndashboard.ranges import RANGES, history
from kndashboard.requests import PipelineCaller, item_ids
from kndashboard.ring import RingFile
from kndashboard.served import ServedModel, in_use
from kndashboard.view import view
from localkn.errors import LocalknError

STATIC = Path(__file__).with_name("static")
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_FILES = (
    "style.css", "page.js", "dom.js", "picture.js", "charts.js", "plot.js", "request.js", "details.js",
    "user.js", "changes.js",
)  # fmt: skip
_TRY_BYTES = 65_536


class _LookUp(msgspec.Struct):
    user_id: str = ""
    added: str = ""


class _LookAt(msgspec.Struct):
    item_id: str = ""


class _Redrive(msgspec.Struct, omit_defaults=True):
    trigger: str | None = None
    ids: Annotated[list[str], msgspec.Meta(max_length=1_000)] | None = None
    source: str | None = None


_LOOK_UP, _LOOK_AT, _REDRIVE = Decoder(_LookUp), Decoder(_LookAt), Decoder(_Redrive)


class Dashboard:
    """
    The dashboard of one platform.

    Args:
        recent: Snapshots of the platform.
        ring: The remembered time.
        client: Sends requests to the pipeline.
        platform: Asks the platform what no snapshot contains.
    """

    def __init__(
        self, recent: SnapshotHistory, ring: RingFile, client: httpx.AsyncClient, *, platform: PlatformQueries
    ) -> None:
        self._recent, self._ring, self._platform = recent, ring, platform
        self._caller = PipelineCaller(client)
        self._model, self._logs_read = ServedModel(platform.services), RecentLogs(platform.logs)

    def app(self) -> Starlette:
        """Return the application."""
        files = [Route(f"/_dashboard/{name}", _file(name)) for name in _FILES]
        return Starlette(
            routes=[
                Route("/", lambda _: RedirectResponse("/_dashboard")),
                Route("/_dashboard", _file("index.html")),
                *files,
                Route("/_dashboard/state", self._state),
                Route("/_dashboard/history", self._history),
                Route("/_dashboard/about", self._about),
                Route("/_dashboard/changes", self._changes),
                Route("/_dashboard/events", self._events),
                Route("/_dashboard/redrive", self._redrive, methods=["POST"]),
                Route("/_dashboard/logs", self._logs),
                Route("/_dashboard/items", self._items),
                Route("/_dashboard/item", self._item, methods=["POST"]),
                Route("/_dashboard/request", self._try, methods=["POST"]),
                Route("/_dashboard/user", self._user, methods=["POST"]),
                Route("/metrics", self._metrics),
            ],
            middleware=[Middleware(HostGuard, hosts=LOOPBACK)],
            exception_handlers={**REFUSALS, LocalknError: _not_running},
        )

    async def _metrics(self, _request: Request) -> Response:
        _, now = await self._recent.window()
        text = await asyncio.to_thread(expose, now)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _state(self, _: Request) -> Response:
        before, now = await self._recent.window()
        # It takes 1 ms, of which a hand-over to another thread would be a third.
        return _json(view(before, now))

    async def _history(self, request: Request) -> Response:
        asked = request.query_params
        try:
            chosen, after = RANGES[int(asked.get("minutes", "15"))], float(asked.get("after", "0"))
            found = await asyncio.to_thread(history, self._ring, chosen, now=time.time(), after=after)
        except (KeyError, ValueError, OverflowError) as error:
            known = ", ".join(map(str, RANGES))
            raise InvalidRequestError(f"minutes must be one of {known}, and after a time in seconds") from error
        return _json(found)

    async def _about(self, _request: Request) -> Response:
        """Answer with the state directory, the model that is configured, and the models that the instances use."""
        _, now = await self._recent.window()
        card = await asyncio.to_thread(self._model.card)
        about = {"state_dir": str(self._platform.folder), "model": card, "in_use": in_use(now)}
        return _json(about)

    async def _changes(self, _request: Request) -> Response:
        """Answer with the experiments, the shadow and the rollouts."""
        _, now = await self._recent.window()
        services = await asyncio.to_thread(self._platform.services)
        return _json(await asyncio.to_thread(changes, services, self._platform.reports, now))

    async def _events(self, _: Request) -> Response:
        return _json(await asyncio.to_thread(self._platform.events))

    async def _redrive(self, request: Request) -> Response:
        choice = _REDRIVE.decode(await _own_body(request))
        return _json(await asyncio.to_thread(self._platform.redrive, msgspec.to_builtins(choice)))

    async def _logs(self, request: Request) -> Response:
        name = request.query_params.get("name", "")
        return _json(await asyncio.to_thread(self._logs_read.newest, name))

    async def _items(self, request: Request) -> Response:
        wanted = request.query_params.get("q", "")
        return _json(await asyncio.to_thread(self._model.search, wanted))

    async def _item(self, request: Request) -> Response:
        """Answer with an item of the catalogue and those that resemble it, as an instance of rank_items knows them."""
        asked = _LOOK_AT.decode(await _own_body(request))
        _, now = await self._recent.window()
        return _json(await self._caller.look_at(now, asked.item_id))

    async def _try(self, request: Request) -> Response:
        body = await _own_body(request)
        _, now = await self._recent.window()
        answer = await self._caller.send(now.status["url"], body)
        return _json({**answer, "titles": await self._titles(item_ids(answer))})

    async def _user(self, request: Request) -> Response:
        asked = _LOOK_UP.decode(await _own_body(request))
        _, now = await self._recent.window()
        found = await self._caller.look_up(now, asked.user_id, added=asked.added)
        answers = (each for each in found.values() if isinstance(each, dict))
        return _json({**found, "titles": await self._titles(item_id for each in answers for item_id in item_ids(each))})

    async def _titles(self, ids: Iterable[str]) -> dict[str, str]:
        """Return the known titles of items."""
        wanted = list(ids)
        known = await asyncio.to_thread(self._model.titles) if wanted else {}
        return {item_id: known[item_id] for item_id in wanted if item_id in known}


async def _own_body(request: Request) -> bytes:
    """
    Return the body of a request of the dashboard's page.

    Raises:
        ForbiddenError: Another site's page may have sent the request.
    """
    if _is_foreign(request):
        raise ForbiddenError("requests are taken from the dashboard's own page")
    return await read_body(request.headers.raw, request.receive, limit=_TRY_BYTES)


def _json(content: Any) -> Response:
    return Response(msgspec.json.encode(content), headers=_HEADERS, media_type="application/json")


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    # Many callers at the same time would open the file as often, and could take the last descriptors of the process.
    content = (STATIC / name).read_bytes()

    async def send(_: Request) -> Response:
        return Response(content, headers=_HEADERS, media_type=_TYPES[Path(name).suffix])

    return send


async def _not_running(_: Request, error: Exception) -> Response:
    return problem_response(DependencyError(str(error), retry_after_s=1.0))


def _is_foreign(request: Request) -> bool:
    """Tell whether another site's page may have sent *request*. A browser asks the server before it sends JSON for one."""
    host, origin = request.headers["host"], request.headers.get("origin")
    return (
        request.headers.get("content-type", "").partition(";")[0] != "application/json"
        or origin not in {None, f"http://{host}"}
        or request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}
    )
