"""The least that uvicorn can be asked for: `uvicorn tools.bench.compared.bare:app --lifespan off`."""

from typing import Any

# As long as what extract_features says of a user with 50 items.
ANSWER = b'{"items":[%b]}' % b",".join(b'"item_%d"' % number for number in range(100, 150))
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))],
}


async def app(_scope: Any, receive: Any, send: Any) -> None:
    """Read the request, whatever it is, and give the answer that never changes."""
    await receive()
    await send(_START)
    await send({"type": "http.response.body", "body": ANSWER})
