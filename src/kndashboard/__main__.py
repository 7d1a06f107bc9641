"""`python -m kndashboard --state-dir DIR --fd N`: show a platform. localkn starts this program beside the platform."""

import argparse
import asyncio
import socket
import ssl
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import httpx
import uvloop

from chassis.server.config import configure
from chassis.server.idle_server import WakingServer
from kndashboard.app import Dashboard
from kndashboard.columns import WIDTH
from kndashboard.history import SnapshotHistory
from kndashboard.queries import PlatformQueries
from kndashboard.recorder import SnapshotRecorder
from kndashboard.ring import RingFile
from kndashboard.scraper import Scraper
from kndashboard.snapshots import Watcher
from localkn.control import KeptConnection
from localkn.state import PlatformDirectory


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal stops the program."""
    parser = argparse.ArgumentParser(prog="python -m kndashboard", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True, help="the state directory of the platform")
    parser.add_argument("--fd", type=int, required=True, help="descriptor of a listening socket")
    parser.add_argument("--trust", type=Path, help="certificate (PEM) of the public port")
    parser.add_argument("--reports", type=Path, help="directory of the reports on experiments and rollouts")
    options = parser.parse_args(argv)
    # uvloop takes a sixth less time for a snapshot of 15 instances.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        state = PlatformDirectory(options.state_dir)
        queries = PlatformQueries(state, options.reports)
        runner.run(_serve(state, queries, fd=options.fd, trust=options.trust))
    return 0


async def _serve(state: PlatformDirectory, queries: PlatformQueries, *, fd: int, trust: Path | None) -> None:
    # Proxies of the environment do not lead to this machine.
    async with httpx.AsyncClient(verify=_trusting(trust), trust_env=False) as client:
        platform = KeptConnection(state.socket("control"))
        watcher = Watcher(partial(platform.call, "status"), Scraper().read)
        recent, ring = SnapshotHistory(watcher), RingFile(state.history, width=WIDTH)
        recording = asyncio.create_task(SnapshotRecorder(recent, ring).run())
        app = Dashboard(recent, ring, client, platform=queries).app()
        # Open pages keep their connections, so the server does not wait for them when it stops.
        config = configure(app, log_level="warning", timeout_graceful_shutdown=1)
        with socket.socket(fileno=fd) as listener:
            try:
                await WakingServer(config).serve(sockets=[listener])
            finally:
                recording.cancel()


def _trusting(certificate: Path | None) -> ssl.SSLContext:
    """Return a TLS context that trusts *certificate* alone, regardless of its issuer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if certificate is not None:
        context.load_verify_locations(certificate)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


if __name__ == "__main__":
    sys.exit(main())
