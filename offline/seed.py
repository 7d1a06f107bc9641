"""
`python -m offline.seed`: put the demo data on a cluster. Fill the feature store, train, publish the model.

The command may run again: it does not change a filled store, and it publishes an equal model. With `--every` it keeps
running, and refills a store that lost its users, for example because its disk was deleted with its pod.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from offline.demo import Demo, make_demo
from offline.publication import ClusterAccess, PublishError, publish
from offline.training import train
from recstore.port import FeatureStore, StoreError, StoreMissingError, StoreUnavailableError
from recstore.urls import open_store
from recsys.features import compute_features, population_defaults

_RETRY_S = 1.0
_FILLED = "the feature store is filled already"


def main(arguments: Sequence[str] | None = None, *, env: Mapping[str, str] = os.environ) -> int:
    """Seed the store that FEATURE_STORE_URL names; return the exit status."""
    parser = argparse.ArgumentParser(prog="offline.seed", description=__doc__)
    parser.add_argument("--config-map", metavar="NAME", help="publish the model in this ConfigMap")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="wait this long for a store that does not answer"
    )
    parser.add_argument(
        "--every", type=float, metavar="SECONDS", help="keep running, and check the store at this interval"
    )
    options = parser.parse_args(arguments)
    try:
        url, password = env.get("FEATURE_STORE_URL", ""), env.get("FEATURE_STORE_PASSWORD")
        if not url:
            raise StoreMissingError("FEATURE_STORE_URL is not set; name the store to fill")
        demo, make_store = make_demo(), partial(open_store, url, create=True, password=password)
        print(asyncio.run(seed(make_store, demo, wait_s=options.wait)), flush=True)
        if options.config_map:
            print(_publish(demo, options.config_map), flush=True)
        if options.every:
            asyncio.run(keep_filled(make_store, demo, every_s=options.every))
    except (StoreError, PublishError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


async def seed(make_store: Callable[[], FeatureStore], demo: Demo, *, wait_s: float) -> str:
    """
    Fill the store with the demo's users unless it was filled before; return a report.

    Raises:
        StoreUnavailableError: the store did not answer for *wait_s* seconds.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return await _fill(make_store(), demo)
        except StoreUnavailableError:
            if time.monotonic() >= deadline:
                raise
            await asyncio.sleep(_RETRY_S)


async def keep_filled(make_store: Callable[[], FeatureStore], demo: Demo, *, every_s: float) -> None:
    """Check the store every *every_s* seconds and refill it if it was never filled, until SIGTERM."""
    stopping = asyncio.Event()
    # Without a handler, SIGTERM does not end the first process of a container.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    while not stopping.is_set():
        with contextlib.suppress(StoreUnavailableError):
            if (done := await _fill(make_store(), demo)) != _FILLED:
                print(done, flush=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                await stopping.wait()


async def _fill(store: FeatureStore, demo: Demo) -> str:
    async with contextlib.aclosing(store):
        # Only a replacement writes the population, so events that arrive before the demo data do not matter.
        if await store.population() is not None:
            return _FILLED
        population = population_defaults([compute_features(record) for record in demo.records if record.history])
        count = await store.replace(demo.records, population=population)
        return f"users in the feature store: {count}"


def _publish(demo: Demo, name: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        items = {item.item_id: item for item in demo.items}
        manifest = train(demo.records, items=items, folder=Path(folder), dataset="demo")
        publish(Path(folder), name=name, cluster=ClusterAccess.own())
    return f"model {manifest.name} {manifest.version} is in ConfigMap {name}"


if __name__ == "__main__":
    sys.exit(main())
