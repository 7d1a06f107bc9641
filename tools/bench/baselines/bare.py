"""A minimal ASGI app with a constant answer. Run it with `uvicorn tools.bench.baselines.bare:app --lifespan off`."""

from typing import Any

# As long as an answer of extract_features for a user with 50 items.
ANSWER = b'{"items":[%b]}' % b",".join(b'"item_%d"' % number for number in range(100, 150))
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))],
}


async def app(_scope: Any, receive: Any, send: Any) -> None:
    """Read any request and send the constant answer."""
    await receive()
    await send(_START)
    await send({"type": "http.response.body", "body": ANSWER})
