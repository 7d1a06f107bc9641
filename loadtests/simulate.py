"""`./run.sh simulate`: people with planted tastes look at lists of the running pipeline and click on items."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec

from chassis.wire.transport import HttptoolsTransport
from loadtests.people import demo_people
from loadtests.shift import Shifted, learned_until_in, versions_in, watch_shift
from loadtests.simulation import Audience, Simulated, describe, simulate
from loadtests.target import LoadTarget, TargetError, find_target
from localkn.address import broker_url
from localkn.errors import LocalknError
from offline.state import StateDirectory, StateError
from recsys.client import AsyncClient


def run(
    *,
    users: int,
    lists: int,
    top_k: int,
    callers: int,
    bias: float,
    seed: int,
    shift: bool,
    within: float,
    url: str | None,
    events_url: str | None,
    port: int | None,
    as_json: bool,
    state_dir: Path,
) -> int:
    """
    Simulate, or plant a *shift* and wait *within* seconds until the lists follow it.

    Returns:
        0, or 1 if the pipeline does not answer, names no exposures, refuses clicks, or does not follow in time.
    """
    people = demo_people(bias=bias, seed=seed)
    try:
        target = find_target(state_dir=state_dir, url=url, port=port, token="")
        broker = events_url or broker_url(state_dir / "platform", "default")
        state = StateDirectory(state_dir)
        store_url = state.store_url(state.require_current()) if shift else ""
    except (TargetError, LocalknError, StateError) as error:
        print(error, file=sys.stderr)
        return 1

    async def plain() -> Simulated:
        async with _client(target, broker) as client:
            return await simulate(people, client, users=users, lists=lists, top_k=top_k, callers=callers)

    async def shifting() -> Shifted:
        async with _client(target, broker) as client:
            audience, say = Audience(people, client, top_k=top_k), partial(print, file=sys.stderr, flush=True)
            return await watch_shift(
                audience,
                versions_in(store_url),
                learned_until_in(state),
                users=users,
                callers=callers,
                within_s=within,
                say=say,
            )

    if shift:
        shifted = asyncio.run(shifting())
        _print(shifted.facts(), shifted.describe(), as_json=as_json)
        return 1 if shifted.fault else 0
    found = asyncio.run(plain())
    _print(found.summary(), describe(found), as_json=as_json)
    if not found.looks:
        print(f"{target.url}: no answer names its exposure; run ./run.sh up --exposures", file=sys.stderr)
    return 0 if found.looks and not (found.failed or found.unsent) else 1


def _print(facts: Mapping[str, object], text: str, *, as_json: bool) -> None:
    print(msgspec.json.encode(facts).decode() if as_json else text)


@asynccontextmanager
async def _client(target: LoadTarget, broker: str) -> AsyncIterator[AsyncClient]:
    # With httpx's own transport, the people would need most of the CPU time.
    transport = HttptoolsTransport(tls=target.trust())
    async with AsyncClient(target.url, events_url=broker, timeout_s=10, transport=transport) as client:
        yield client
