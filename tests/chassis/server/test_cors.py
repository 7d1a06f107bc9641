"""Pages of other origins may call only if the settings allow their origin."""

from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.requests import Request

from chassis.call import Call, Reply
from chassis.environment import Reader, SettingsError
from chassis.server.asgi import as_function
from chassis.server.cors import Cors
from chassis.server.service import Service
from chassis.server.settings import ServingSettings
from chassis.wire.problems import OverloadedError

SHOP, OTHER = "https://shop.example", "https://other.example"
ASKS = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}


def read(text: str) -> Cors | None:
    reader = Reader({"CORS_ORIGINS": text})
    cors = Cors.read(reader)
    reader.finish()
    return cors


@asynccontextmanager
async def client(cors: Cors | None):
    async def handle(call: Call) -> Reply:
        if call.body == b"[]":
            raise OverloadedError(retry_after_s=1.0)
        return Reply(call.body)

    @asynccontextmanager
    async def open_handler():
        yield handle

    reader = Reader({"AUTH": "off"})
    service = Service(
        "door", open_handler, settings=ServingSettings.read(reader, name="door", max_body_bytes=4096), cors=cors
    )
    answer = as_function(service)

    async def application(scope, receive, send):
        await (await answer(Request(scope, receive)))(scope, receive, send)

    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://door") as opened:
        yield opened
    await service.stop()


async def test_a_preflight_of_an_allowed_origin_is_granted():
    """The answer allows the origin, the method and the headers of a request, and says how long that holds."""
    async with client(read(f"{SHOP}, http://127.0.0.1:3000")) as door:
        answer = await door.options("/", headers={"origin": SHOP, **ASKS})
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == SHOP
        assert answer.headers["access-control-allow-methods"] == "POST"
        assert {"content-type", "authorization"} <= set(answer.headers["access-control-allow-headers"].split(", "))
        assert (answer.headers["access-control-max-age"], answer.headers["vary"]) == ("600", "origin")


async def test_answers_and_errors_can_be_read_by_an_allowed_origin():
    """An answer and a problem document name the origin, and the page may read the receipt and Retry-After."""
    async with client(read(SHOP)) as door:
        for body, status in ((b"{}", 200), (b"[]", 503)):
            answer = await door.post("/", content=body, headers={"origin": SHOP})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, SHOP)
            assert {"server-timing", "retry-after"} <= set(answer.headers["access-control-expose-headers"].split(", "))


async def test_other_origins_get_no_permission():
    """Answers to other origins, and to requests without one, allow nothing, and caches keep them apart."""
    async with client(read(SHOP)) as door:
        for headers in ({"origin": OTHER}, {}):
            answers = [await door.post("/", content=b"{}", headers=headers)]
            answers.append(await door.options("/", headers=headers | ASKS))
            assert [each.headers.get("access-control-allow-origin") for each in answers] == [None, None]
            assert {each.headers["vary"] for each in answers} == {"origin"}


async def test_a_star_allows_every_origin():
    """With `*`, each origin is allowed."""
    async with client(read("*")) as door:
        assert (await door.post("/", content=b"{}", headers={"origin": OTHER})).headers[
            "access-control-allow-origin"
        ] == OTHER


async def test_without_the_setting_nothing_changes():
    """By default a preflight gets 405, and answers have no headers for other origins."""
    async with client(read("-")) as door:
        assert (await door.options("/", headers={"origin": SHOP, **ASKS})).status_code == 405
        answer = await door.post("/", content=b"{}", headers={"origin": SHOP})
        assert not [name for name in answer.headers if name.startswith("access-control") or name == "vary"]


async def test_a_function_names_further_headers_that_pages_may_read():
    """Without it, a browser hides the header from the page."""
    async with client(Cors([SHOP], exposed=[b"x-own"])) as door:
        answer = await door.post("/", content=b"{}", headers={"origin": SHOP})
        assert {"x-own", "x-request-id"} <= set(answer.headers["access-control-expose-headers"].split(", "))


@pytest.mark.parametrize("text", ["https://shop.example:8443", "http://[::1]:3000", "http://localhost:8080"])
def test_an_origin_may_have_a_port_and_an_address(text):
    """Browsers send a port that is not the scheme's own."""
    assert read(text) is not None


NO_ORIGINS = ["shop.example", "https://shop.example/", "https://", "ftp://a", "https://a,", "null"]
NEVER_SENT = ["https://Shop.example", "HTTPS://shop.example", "https://bücher.example", "https://a:443", "http://a:80"]


@pytest.mark.parametrize("text", NO_ORIGINS + NEVER_SENT)
def test_a_text_that_is_no_origin_is_a_fault(text):
    """The error names the text, and shows an origin."""
    with pytest.raises(SettingsError, match="CORS_ORIGINS must list origins such as https://shop.example"):
        read(text)
